from pathlib import Path

import pytest
from PIL import Image

from la_det.data.build import Options
from la_det.data.sources import train_and_test
from la_det.data.voc import read_voc, voc_splits
from la_det.engine.own_dataset import use_own_dataset
from la_det.errors import UserError

SIZE = "<size><width>64</width><height>32</height><depth>3</depth></size>"


def an_object(name: str = "nut", box: tuple = (1, 1, 10, 20), more: str = "") -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def write(path: Path, *objects: str, size: str = SIZE, filename: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """VOC's own folders."""
    write(
        tmp_path / "Annotations/000001.xml",
        an_object(),
        an_object("bolt", (5.5, 2, 64, 32), "<difficult>1</difficult>"),
    )
    write(tmp_path / "Annotations/000002.xml", an_object("bolt"))
    write(tmp_path / "Annotations/000003.xml", filename="000003.jpg")
    for name in ("JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(1, 4):
        Image.new("RGB", (64, 32)).save(tmp_path / f"JPEGImages/00000{i}.jpg")
    (tmp_path / "ImageSets/Main/train.txt").write_text("000001\n000003\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("000002  1\n")
    return tmp_path


def test_pixels_are_counted_from_one_and_inclusive(devkit):
    records = read_voc(str(devkit), Options(split="train"))
    assert records.classes == ("bolt", "nut")
    assert [r["image_id"] for r in records] == ["000001", "000003"]
    assert records[0]["file_name"] == str(devkit / "JPEGImages/000001.jpg")
    assert [(a["bbox"], a["category_id"]) for a in records[0]["annotations"]] == [
        ([0, 0, 10, 20], 1),
        ([4.5, 1, 59.5, 31], 0),
    ]
    assert read_voc(str(devkit), Options(split="train", boxes="xyxy"))[0]["annotations"][0]["bbox"] == [1, 1, 9, 19]


def test_parts_have_the_same_classes(devkit):
    assert voc_splits(str(devkit)) == ("train", "val")
    train, (test,) = train_and_test(f"voc:{devkit}")
    assert (train.options.split, test.options.split) == ("train", "val")
    assert train.read().classes == test.read().classes == ("bolt", "nut")
    assert len(read_voc(str(devkit))) == 3


def test_names_in_lists_may_have_spaces(devkit):
    names = ["photo (1)", "photo (2)", "photo 1", "photo", "photo 0"]
    for i, name in enumerate(names):
        write(devkit / f"Annotations/{name}.xml", an_object("bolt", (1, 1, 10 + i, 20)))
    (devkit / "ImageSets/Main/train.txt").write_text("photo (1)\nphoto (2)  1\nphoto 1\nphoto -1\n photo 0 -1 \n")
    records = read_voc(str(devkit), Options(split="train"))
    assert [r["image_id"] for r in records] == names
    assert [r["annotations"][0]["bbox"][2] for r in records] == [10, 11, 12, 13, 14]
    (devkit / "ImageSets/Main/train.txt").write_text("photo 2\n")
    with pytest.raises(UserError, match="photo 2.xml: no XML that can be read"):
        read_voc(str(devkit), Options(split="train"))


def test_images_beside_their_files(tmp_path):
    write(tmp_path / "a.xml", an_object(), size="")
    write(tmp_path / "b.xml", an_object(), size=SIZE.replace("64", "0"), filename="other.png")
    for name in ("a.jpeg", "other.png"):
        Image.new("RGB", (40, 50)).save(tmp_path / name)
    records = read_voc(str(tmp_path))
    assert [Path(r["file_name"]).name for r in records] == ["a.jpeg", "other.png"]
    assert records.sizes.tolist() == [[50, 40], [50, 40]]


def test_two_folders_share_their_classes(tmp_path):
    from omegaconf import OmegaConf

    write(tmp_path / "train/a.xml", an_object("nut"))
    write(tmp_path / "test/b.xml", an_object("bolt"))
    loader = {"dataset": {"names": ""}}
    cfg = OmegaConf.create({"dataloader": {"train": loader, "test": loader}, "model": {"num_classes": 80}})
    use_own_dataset(cfg, f"voc:{tmp_path}/train,{tmp_path}/test")
    assert list(cfg.dataloader.classes.names) == ["bolt", "nut"] and cfg.model.num_classes == 2
    assert cfg.dataloader.test.dataset.names == f"voc:{tmp_path}/test,class=bolt,class=nut"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "no XML that can be read"),
        ("", "no XML that can be read"),
        ("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>", ""),
        ('<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>', "it defines entities"),
        (f"<annotation>{SIZE}<object/></annotation>", "object 0: name is ''"),
        (f"<annotation>{SIZE}<object><name>nut</name></object></annotation>", r"object 0: bndbox is \[None, None"),
        (
            f"<annotation>{SIZE}{an_object(box=(1, 2, 'x', 4))}</annotation>",
            r"object 0: bndbox is \['1', '2', 'x', '4'\]",
        ),
        (f"<annotation>{SIZE}{an_object(box=(1, 2, 'nan', 4))}</annotation>", "object 0: bndbox is"),
        (f"<annotation>{SIZE.replace('64', 'wide')}{an_object()}</annotation>", "its size is no number of pixels"),
    ],
)
def test_damaged_file(devkit, text, reason):
    (devkit / "Annotations/000002.xml").write_text(text)
    if not reason:  # deep, and yet well-formed
        assert len(read_voc(str(devkit))) == 3
        return
    with pytest.raises(UserError, match=f"000002.xml.*{reason}"):
        read_voc(str(devkit), Options(split="train"))


def test_damaged_folders(devkit, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_voc(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no XML file in"):
        read_voc(str(devkit / "JPEGImages"))
    with pytest.raises(UserError, match="test.txt: no list of images"):
        read_voc(str(devkit), Options(split="test"))
    (devkit / "ImageSets/Main/train.txt").write_text("000009\n")
    with pytest.raises(UserError, match="000009.xml: no XML that can be read .*no such file"):
        read_voc(str(devkit), Options(split="train"))
