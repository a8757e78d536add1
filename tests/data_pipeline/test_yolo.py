import shutil
from pathlib import Path

import pytest
from PIL import Image

from la_det.data.build import Options
from la_det.data.loader import build_train_loader
from la_det.data.records import load_records
from la_det.data.yolo import label_file, read_yolo, yolo_splits
from la_det.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 64 x 32 pixels, the last without a file of labels."""
    for name in ("images/train/sub", "labels/train/sub"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a", "sub/b", "c"):
        Image.new("RGB", (64, 32)).save(tmp_path / f"images/train/{name}.png")
    (tmp_path / "labels/train/a.txt").write_text("0 0.5 0.5 0.25 0.5\n\n1 0.25 0.25 0.5 0.25\n")
    (tmp_path / "labels/train/sub/b.txt").write_text("1 0.25 0.25 0.75 0.25 0.5 0.75")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nnames: {1: nut, 0: bolt}\nnc: 2\n")
    return tmp_path


def read(folder: Path, **options: object):
    return read_yolo(str(folder / "data.yaml"), Options(**{"split": "train", **options}))


def test_boxes_and_outlines(folder):
    records = read(folder)
    assert records.classes == ("bolt", "nut")
    assert [r["image_id"] for r in records] == ["a.png", "c.png", "sub/b.png"]
    assert [[a["bbox"] for a in r["annotations"]] for r in records] == [
        [[24, 8, 16, 16], [0, 4, 32, 8]],
        [],
        [[16, 8, 32, 16]],
    ]
    assert records[2]["annotations"][0]["segmentation"] == [[16, 8, 48, 8, 32, 24]]
    with pytest.raises(UserError, match="line 1 of the labels of image a.png: it has no segmentation"):
        records.require_masks()


@pytest.mark.parametrize(("points", "dimensions"), [(3, 2), (2, 3), (17, 3)])
def test_the_box_of_a_pose_is_in_its_first_four_numbers(folder, points, dimensions):
    pose = " 0.9" * points * dimensions
    (folder / "data.yaml").write_text(f"train: images/train\nkpt_shape: [{points}, {dimensions}]\nnames: [bolt, nut]\n")
    (folder / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.25 0.5{pose}\n")
    (folder / "labels/train/sub/b.txt").write_text(f"1 0.5 0.5 0.5 0.5{pose}\n")
    records = read(folder)
    assert [[a["bbox"] for a in r["annotations"]] for r in records] == [[[24, 8, 16, 16]], [], [[16, 8, 32, 16]]]
    assert records.masks is None
    (folder / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.25 0.5{pose} 0.5\n")
    with pytest.raises(UserError, match=f"a.txt, line 1: .*not class x y width height and {points * dimensions} numb"):
        read(folder)


def test_lists_of_images_and_several_folders(folder):
    (folder / "list.txt").write_text("images/train/a.png\n./images/train/c.png\n")
    (folder / "data.yaml").write_text("train: [list.txt, images/train/sub]\nnames: [bolt, nut]\n")
    assert len(read(folder)) == 3


def test_paths_of_roboflow(folder):
    """They lead out of the folder in which the file is."""
    (folder / "data.yaml").write_text("train: ../images/train\nnames: [bolt, nut]\n")
    assert len(read(folder)) == 3


def test_labels_are_beside_images_without_that_folder():
    assert label_file("/x/images/a.b.png") == "/x/labels/a.b.txt"
    assert label_file("/images/images/y/a.png") == "/images/labels/y/a.txt"
    assert label_file("/x/pictures/a.png") == "/x/pictures/a.txt"


def test_parts(folder):
    assert yolo_splits(str(folder / "data.yaml")) == ("train", "train")
    (folder / "data.yaml").write_text("train: images/train\nval:\ntest: images/train\nnames: [bolt, nut]\n")
    assert yolo_splits(str(folder / "data.yaml")) == ("train", "test")
    with pytest.raises(
        UserError, match="split=val: say which part to read, for instance ,split=val; it has train, test"
    ):
        read(folder, split="val")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nut 0.5 0.5 0.1 0.1", "not numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "the class is none of 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "the class is none of 0 to 1"),
        ("2 0.5 0.5 0.1 0.1", "the class is none of 0 to 1"),
        ("nan 0.5 0.5 0.1 0.1", "the class is none of 0 to 1"),
        ("0 0.5 0.5 0.1", "neither class x y width height nor"),
        ("0 0.5 0.5 0.1 0.1 0.9", "neither class x y width height nor"),
        ("0", "neither class x y width height nor"),
        ("0 0.5 inf 0.1 0.1", "not finite numbers"),
        ("0 32 16 10 10", "numbers beyond 1 are pixels"),
        ("0,0.5,0.5,0.1,0.1", "not numbers"),
    ],
)
def test_damaged_line(folder, line, reason):
    (folder / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.25 0.5\n{line}\n")
    with pytest.raises(UserError, match=f"data.yaml: {folder}/labels/train/a.txt, line 2: '{line}': {reason}"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train: [", "malformed YAML"),
        ("3", "it holds 3"),
        ("train: images/train", "names is None"),
        ("train: images/train\nnames: []", r"names is \[\]"),
        ("train: images/train\nnames: {1: nut, 2: bolt}", r"its numbers are \['1', '2'\]"),
        ("train: images/train\nnames: [nut, nut]", "has a name twice"),
        ("train: images/train\nnames: [nut, [bolt]]", r"names\[1\] is \['bolt'\]"),
        ("train: images/train\nnames: [nut, bolt]\nnc: 3", "nc is 3, but there are 2 names"),
        ("train: images/nowhere\nnames: [nut, bolt]", "train: there is no folder or list images/nowhere"),
        ("train: labels\nnames: [nut, bolt]", "train: no image in .*/labels"),
        ("train: 5\nnames: [nut, bolt]", "train is 5"),
        ("names: [nut, bolt]", "split=train: say which part"),
        ("train: images/train\nnames: [nut, bolt]\nkpt_shape: 17", "kpt_shape is 17"),
        ("train: images/train\nnames: [nut, bolt]\nkpt_shape: [17, 4]", r"kpt_shape is \[17, 4\]"),
        ("train: images/train\nnames: [nut, bolt]\nkpt_shape: [true, 2]", r"kpt_shape is \[True, 2\]"),
        ("train: images/train\nnames: [nut, '']", r"names\[1\] is ''"),
        ("train: !!python/object/apply:os.system [ls]\nnames: [a]", "malformed YAML"),
    ],
)
def test_damaged_description(folder, text, reason):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=f"data.yaml: .*{reason}"):
        read(folder)


def test_damaged_image_is_named(folder):
    (folder / "images/train/a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="a.png: cannot read this image"):
        read(folder)


def test_labels_that_are_no_text(folder):
    (folder / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.txt: no text file"):
        read(folder)


def problems(folder: Path) -> list[str]:
    return [str(problem) for problem in read(folder).problems.found]


class TestFolderOfImages:
    """`path` may be of another machine: then the folder of data.yaml takes its place, and a warning says so."""

    def write(self, folder: Path, path: str, train: str = "images/train") -> None:
        (folder / "data.yaml").write_text(f"path: {path}\ntrain: {train}\nnames: [bolt, nut]\n")

    @pytest.mark.parametrize("path", ["/mnt/unmounted", "../datasets/coco8", "empty"])
    def test_that_does_not_have_them(self, folder, path):
        (folder / "empty").mkdir()  # as the place of a disk that is not mounted
        self.write(folder, path)
        declared = (folder / path).resolve()
        assert problems(folder) == [
            f"train: there is no {declared}/images/train: {folder}/images/train is read in its place; correct `path`, "
            "or take it out"
        ]

    def test_of_several_entries(self, folder):
        (folder / "list.txt").write_text("images/train/a.png\n")
        self.write(folder, "/mnt/unmounted", f"[list.txt, {folder}/images/train/sub]")
        (problem,) = problems(folder)
        assert "there is no /mnt/unmounted/list.txt" in problem

    @pytest.mark.parametrize("path", [".", "", "../{}"])
    def test_that_has_them(self, folder, path):
        self.write(folder, path.format(folder.name))
        assert problems(folder) == []

    def test_of_another_place_has_precedence(self, folder, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        (other / "images/train").mkdir(parents=True)
        (other / "labels/train").mkdir(parents=True)
        Image.new("RGB", (64, 32)).save(other / "images/train/z.png")
        (other / "labels/train/z.txt").touch()
        self.write(folder, str(other))
        assert [r["image_id"] for r in read(folder)] == ["z.png"] and problems(folder) == []


class TestMissingLabels:
    """Images without labels are images without objects; folders of labels that do not exist are named."""

    def test_all(self, folder):
        shutil.rmtree(folder / "labels")
        (problem,) = problems(folder)
        assert problem.startswith(f"{folder}/labels/train: no such folder of labels, so its images have no object")
        assert problem.endswith(f"[and 1 more: {folder}/labels/train/sub]")

    def test_of_a_folder(self, folder):
        shutil.rmtree(folder / "labels/train/sub")
        (problem,) = problems(folder)
        assert problem.startswith(f"{folder}/labels/train/sub: no such folder of labels")

    def test_beside_the_images(self, folder):
        (folder / "images").rename(folder / "pictures")
        (folder / "data.yaml").write_text("train: pictures\nnames: [bolt, nut]\n")
        (problem,) = problems(folder)
        assert problem.startswith(f"{folder}/pictures/train/a.txt: no such file of labels, nor one of another image")

    def test_of_some_images(self, folder):
        (folder / "labels/train/a.txt").unlink()
        assert problems(folder) == []

    def test_training_says_so(self, folder):
        shutil.rmtree(folder / "labels")
        name = f"yolo:{folder}/data.yaml,split=train"
        dataset = load_records(name, filter_empty=False)
        for train in (
            lambda: load_records(name, filter_empty=True),
            lambda: build_train_loader(dataset=dataset, mapper=lambda record: record, total_batch_size=1),
        ):
            with pytest.raises(UserError, match="data.yaml: no image has an object; there is nothing to train on") as e:
                train()
            assert f"{folder}/labels/train: no such folder of labels" in str(e.value)


@pytest.mark.parametrize("form", ["[{}]", "{{0: {}, 1: {}, 2: {}, 3: {}, 4: {}}}"])
def test_names_are_read_as_they_are_written(folder, form):
    names = ("no", "yes", "010", "1.10", "12:30")
    text = form.format(*names) if "0:" in form else form.format(", ".join(names))
    (folder / "data.yaml").write_text(f"train: images/train\nnames: {text}\nnc: 5\n")
    assert read(folder).classes == names


def test_linked_folders_are_followed_once(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for name in ("images/deep", "labels/deep"):
        (other / name).mkdir(parents=True)
    Image.new("RGB", (64, 32)).save(other / "images/deep/d.png")
    (other / "labels/deep/d.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    for part in ("images", "labels"):
        (folder / part / "train/linked").symlink_to(other / part, target_is_directory=True)
    (folder / "images/train/again").symlink_to(folder / "images/train/sub", target_is_directory=True)
    (folder / "images/train/sub/loop").symlink_to(folder / "images", target_is_directory=True)
    (other / "images/loop").symlink_to(other / "images", target_is_directory=True)
    (folder / "images/train/nowhere").symlink_to(folder / "nowhere", target_is_directory=True)
    records = read(folder)
    assert [r["image_id"] for r in records] == ["a.png", "c.png", "linked/deep/d.png", "sub/b.png"]
    assert records.counts().tolist() == [2, 0, 1, 1]
