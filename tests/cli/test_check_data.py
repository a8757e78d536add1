import json
from pathlib import Path

import pytest
from PIL import Image

from la_det import cli
from la_det.cli import build_parser, check_data
from la_det.comparison.schemes import SCHEMES
from la_det.errors import UserError
from la_det.visualization.data_check import names_of, recipes


def run(*argv: str) -> int:
    return check_data.run(build_parser("check-data", "check_dataset.py").parse(argv))


@pytest.fixture
def broken(tiny_coco: Path, tmp_path: Path) -> Path:
    """The small data set with problems of annotations and of images that do not stop."""
    content = json.loads((tiny_coco / "train.json").read_text())
    content["annotations"][0]["bbox"] = [5, 5, 0, 3]
    content["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    (tmp_path / "images").mkdir()
    for path in (tiny_coco / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images/1.jpg").write_bytes(b"no image")
    Image.new("L", (64, 48)).save(tmp_path / "images/2.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "images/4.jpg", exif=exif)
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def test_says_what_is_wrong_and_what_a_detector_sees(broken, tmp_path, capsys):
    config = "POTO/poto_r18_fpn_shapes_tiny"
    argv = [
        "--dataset",
        f"coco:{broken}/images,{broken}/train.json",
        "--config-file",
        config,
        "FCOS/fcos_r18_fpn_shapes_tiny",
    ]
    assert run(*argv, "--output", str(tmp_path / "out")) == 1
    printed = capsys.readouterr().out
    assert "annotations[0] of image '0.jpg': box [5, 5, 0, 3]: dropped" in printed
    assert "its segmentation is no list of polygons" in printed
    assert "image files: 9 RGB, 1 L" in printed
    assert "2 cannot be used:" in printed and "images/1.jpg: cannot read this image" in printed
    assert (
        "images/4.jpg: cannot read this image (it is 48 x 64 pixels, its annotation says 64 x 48 because its EXIF"
        in printed
    )
    assert "| left    |" in printed and "looked at 29 of 29 objects" in printed
    assert "| poto: POTO |" in printed and "| fcos: FCOS |" in printed
    assert (tmp_path / "out" / "train.png").stat().st_size > 1000


def test_objects_that_no_scheme_can_learn_are_counted(tmp_path, capsys):
    """FCOS's points are 8 pixels apart on the finest level: it finds none in an object of 2 pixels between them."""
    boxes = [[5, 5, 2, 2], [8, 8, 40, 40], [21, 21, 2, 2], [3, 3, 2, 2]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
        "categories": [{"id": 1, "name": "dot"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    argv = ["--dataset", f"coco:{tmp_path},{tmp_path}/a.json", "--config-file", "FCOS/fcos_r18_fpn_shapes_tiny"]
    assert run(*argv, "--skip-images", "--output", str(tmp_path)) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| fcos: FCOS")]
    assert [cell.strip() for cell in row.split("|")][2:4] == ["2", "2 of 3"]


def test_annotations_alone(tiny_coco, capsys):
    argv = [f"coco:{tiny_coco}/images,{tiny_coco}/val.json", "--skip-images", "--recipes", "none"]
    assert check_data.run(build_parser("check-data").parse(argv)) == 0
    printed = capsys.readouterr().out
    assert "annotations: nothing is wrong" in printed and "1 regions to ignore" in printed and "scheme" not in printed


@pytest.fixture
def unusable(tmp_path) -> dict[str, str]:
    """Names of data sets without an object, and what errors say about them."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [],
        "categories": [{"id": 1, "name": "dot"}],
    }
    box = {"image_id": 1, "category_id": 1, "bbox": [8, 8, 4, 4]}
    ignored = box | {"iscrowd": 1}
    files = {"empty": [], "ignored": [ignored], "dropped": [box | {"bbox": [8, 8, 0, 4]}, ignored]}
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images/a.png")
    for name, annotations in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content | {"annotations": annotations}))
    (tmp_path / "data.yaml").write_text("train: images\nnames: [dot]\n")
    names = {f"coco:{tmp_path}/images,{tmp_path}/{name}.json": f"{tmp_path}/{name}.json: " for name in files}
    return names | {f"yolo:{tmp_path}/data.yaml": f"{tmp_path}/labels: no such folder of labels"}


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("more", [["--recipes", "none"], []])
def test_data_without_an_object(unusable, number, more, capsys):
    name, reason = list(unusable.items())[number]
    with pytest.raises(SystemExit) as end:
        cli.run("check-data", [name, *more])
    assert end.value.code == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and reason in line and "no image has an object" in line
    assert not printed.out, "one line is all"


def test_data_without_annotations_can_be_used(unusable, tmp_path, capsys):
    """As those of COCO's server."""
    content = json.loads((tmp_path / "empty.json").read_text())
    del content["annotations"]
    (tmp_path / "test.json").write_text(json.dumps(content))
    assert cli.run("check-data", [f"coco:{tmp_path}/images,{tmp_path}/test.json"]) == 0
    assert "image files: 1 RGB" in capsys.readouterr().out


def test_names_and_recipes(tiny_coco):
    option = f"coco:{tiny_coco}/images,{tiny_coco}/train.json"
    assert names_of(f"{option},{tiny_coco}/images,{tiny_coco}/val.json") == [option, option.replace("train", "val")]
    assert names_of("shapes_tiny_train") == ["shapes_tiny_train"]
    assert len(recipes("shapes_tiny")) == len(SCHEMES) and len(recipes("coco")) >= 10 and recipes("none") == []
    with pytest.raises(UserError, match="no_such: no such data set") as error:
        run("--dataset", "no_such")
    assert "--dataset" not in str(error.value), "la-det check-data has no such option"
    with pytest.raises(UserError, match=f"write coco:IMAGES,{tiny_coco}/train.json$"):
        run("--dataset", f"{tiny_coco}/train.json")
