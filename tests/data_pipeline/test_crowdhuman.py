import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from la_det.data.boxes import CONVENTIONS
from la_det.data.builtin import register_shapes
from la_det.data.crowdhuman import load_annotated_records, load_crowdhuman, register_crowdhuman
from la_det.data.crowdhuman_coco import coco_to_odgt, odgt_to_coco
from la_det.data.odgt import read_odgt
from la_det.data.shapes import SHAPES
from la_det.data.sources import read_source
from la_det.errors import UserError
from la_det.evaluation.crowdhuman import CrowdHumanEvaluator

BOX = {"tag": "person", "fbox": [-3, 4, 10, 20], "vbox": [0, 4, 7, 20], "hbox": [0, 4, 3, 3], "extra": {"box_id": 0}}


def write_odgt(path: Path, *records: dict | str) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def write_image(path: Path, width: int, height: int, orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (width, height)).save(path, exif=exif)


def sized(image_id: str, *boxes: dict) -> dict:
    return {"ID": image_id, "height": 40, "width": 60, "gtboxes": list(boxes)}


def test_sizes_are_read_from_the_images_and_kept(tmp_path: Path) -> None:
    write_image(tmp_path / "Images/1,a.jpg", 50, 30)
    write_image(tmp_path / "Images/2,b.jpg", 50, 30, orientation=6)
    records = [{"ID": "1,a", "gtboxes": []}, {"ID": "2,b", "gtboxes": []}, sized("3,c")]
    odgt = write_odgt(tmp_path / "annotation.odgt", *records)
    sizes = [(record["height"], record["width"]) for record in read_odgt(odgt, tmp_path / "Images")]
    # Detectron2 turns an image as its EXIF orientation says.
    assert sizes == [(30, 50), (50, 30), (40, 60)]
    (tmp_path / "Images/1,a.jpg").unlink()
    assert [(record["height"], record["width"]) for record in read_odgt(odgt, tmp_path / "Images")] == sizes
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "Images",
        "annotation.odgt",
        "annotation.odgt.sizes.json",
    ]


def test_sizes_need_no_writable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "Images/a.jpg", 50, 30)
    odgt = write_odgt(tmp_path / "annotation.odgt", {"ID": "a", "gtboxes": []})

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    assert read_odgt(odgt, tmp_path / "Images")[0]["height"] == 30


def test_nothing_is_written_where_the_file_has_sizes(tmp_path: Path) -> None:
    read_odgt(write_odgt(tmp_path / "annotation.odgt", sized("a")))
    assert [path.name for path in tmp_path.iterdir()] == ["annotation.odgt"]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ('{"ID": "b", "gtboxes": [', "not JSON"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "not JSON"),
        ("[1, 2]", '"ID"'),
        ({"gtboxes": []}, '"ID"'),
        ({"ID": "b"}, '"gtboxes"'),
        (sized("a"), "before"),
        (sized("b", {"tag": "person"}), '"fbox"'),
        (sized("b", {"fbox": [0, 0, 1, 1]}), '"tag"'),
        (sized("b", BOX, {**BOX, "fbox": [0, 0, 5]}), 'the "fbox" of box 1'),
        (sized("b", {**BOX, "fbox": [0, 0, float("nan"), 5]}), '"fbox"'),
        (sized("b", {**BOX, "extra": 3}), '"extra"'),
        ({**sized("b"), "height": 0}, '"height"'),
        ({"ID": "b", "gtboxes": []}, "no height and width"),
    ],
)
def test_damaged_line(damaged: dict | str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odgt = write_odgt(tmp_path / "annotation.odgt", sized("a", BOX), "", damaged, sized("c"))
    with pytest.raises(UserError, match=f"annotation.odgt, line 3: .*{reason}.*--skip-bad"):
        read_odgt(odgt)
    with caplog.at_level(logging.WARNING, logger="la_det"):
        assert [record["ID"] for record in read_odgt(odgt, skip_bad=True)] == ["a", "c"]
    (warning,) = caplog.records
    assert "left out 1 damaged lines" in warning.message and "line 3" in warning.message


def test_missing_or_broken_image_is_named(tmp_path: Path) -> None:
    odgt = write_odgt(tmp_path / "annotation.odgt", {"ID": "a", "gtboxes": []})
    with pytest.raises(UserError, match="line 1: .*a.jpg"):
        read_odgt(odgt, tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="line 1: .*a.jpg"):
        read_odgt(odgt, tmp_path)
    with pytest.raises(UserError, match="no usable line.*a.jpg"):
        read_odgt(odgt, tmp_path, skip_bad=True)


def test_unusable_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable line"):
        read_odgt(write_odgt(tmp_path / "empty.odgt"))
    with pytest.raises(UserError, match="Images: no such folder"):
        read_odgt(write_odgt(tmp_path / "a.odgt", {"ID": "a", "gtboxes": []}), tmp_path / "Images", skip_bad=True)
    with pytest.raises(UserError, match="missing.odgt"):
        read_odgt(tmp_path / "missing.odgt")


def test_dataset_dicts_in_detectron2(tmp_path: Path) -> None:
    ignored = [{**BOX, "tag": "mask"}, {**BOX, "extra": {"ignore": 1}}]
    odgt = write_odgt(tmp_path / "annotation.odgt", sized("1,a", BOX, *ignored), sized("2,b", *ignored), sized("3,c"))
    register_crowdhuman("crowdhuman_test", odgt, tmp_path / "Images")
    try:
        first, second, third = get_detection_dataset_dicts("crowdhuman_test", filter_empty=False)
        # Unlike with Detectron2's filter_empty, an image with ignored boxes only takes part.
        assert list(load_annotated_records("crowdhuman_test")) == [first, second]
        assert MetadataCatalog.get("crowdhuman_test").thing_classes == ["person"]
    finally:
        DatasetCatalog.remove("crowdhuman_test")
        MetadataCatalog.remove("crowdhuman_test")
    assert first["file_name"] == str(tmp_path / "Images/1,a.jpg")
    assert (first["image_id"], first["height"], first["width"]) == ("1,a", 40, 60)
    assert first["annotations"][0] == {
        "bbox": [-3, 4, 10, 20],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
    }
    assert [[a["iscrowd"] for a in image["annotations"]] for image in (first, second)] == [[0, 1, 1], [1, 1]]
    assert third["annotations"] == []


def test_published_splits_are_registered_without_their_files() -> None:
    for split in ("train", "val"):
        assert f"crowdhuman_{split}" in DatasetCatalog
        metadata = MetadataCatalog.get(f"crowdhuman_{split}")
        assert Path(metadata.odgt_file).parts[-2:] == ("CrowdHuman", f"annotation_{split}.odgt")
        assert Path(metadata.image_root).parts[-2:] == ("CrowdHuman", "Images")


def test_images_of_the_loader_have_the_size_of_the_dicts(tmp_path: Path) -> None:
    from detectron2.data.detection_utils import check_image_size, read_image

    write_image(tmp_path / "a.jpg", 50, 30, orientation=8)
    odgt = write_odgt(tmp_path / "annotation.odgt", {"ID": "a", "gtboxes": []})
    (image,) = load_crowdhuman(odgt, tmp_path)
    pixels = read_image(image["file_name"], "BGR")
    check_image_size(image, pixels)
    assert np.shape(pixels) == (50, 30, 3)


def test_ids_keep_their_folders_in_cocos_form(tmp_path: Path) -> None:
    records = [sized(image_id, BOX) for image_id in ("a/1", "b/1", "c.d/e.f")]
    coco = odgt_to_coco(read_odgt(write_odgt(tmp_path / "a.odgt", *records)))
    assert [image["file_name"] for image in coco["images"]] == ["a/1.jpg", "b/1.jpg", "c.d/e.f.jpg"]
    assert [record["ID"] for record in coco_to_odgt(coco)] == ["a/1", "b/1", "c.d/e.f"]


def test_generated_crowd_in_its_odgt_form(tmp_path: Path) -> None:
    spec = replace(SHAPES["shapes_crowd"], name="crowd_of_odgt_test", num_train=1, num_val=4)
    register_shapes(spec, tmp_path)
    from_odgt, from_coco = (DatasetCatalog.get(f"{spec.name}{form}_val") for form in ("_odgt", ""))
    assert [image["file_name"] for image in from_odgt] == [image["file_name"] for image in from_coco]
    assert any(a["iscrowd"] for image in from_odgt for a in image["annotations"])
    for mine, other in zip(from_odgt, from_coco, strict=True):
        assert (mine["height"], mine["width"]) == (spec.image_size, spec.image_size)
        for key in ("bbox", "iscrowd", "category_id"):
            assert [a[key] for a in mine["annotations"]] == [a[key] for a in other["annotations"]]

    # The evaluator takes either form: the images, not their numbers, are the same.
    for form in ("_odgt", ""):
        evaluator = CrowdHumanEvaluator(f"{spec.name}{form}_val")
        for image in DatasetCatalog.get(f"{spec.name}{form}_val"):
            boxes = [(*box[:2], box[0] + box[2], box[1] + box[3]) for box in (a["bbox"] for a in image["annotations"])]
            instances = Instances((1, 1), pred_boxes=Boxes(boxes), scores=torch.ones(len(boxes)))
            evaluator.process([image], [{"instances": instances}])
        metrics = evaluator.evaluate()["crowdhuman"]
        assert (metrics["Recall"], metrics["mMR"]) == (100, 0)


class TestOwnPedestrians:
    """Data of others in the odgt form."""

    def write(
        self,
        root: Path,
        tag: str = "person",
        folder: str = "",
        suffix: str = ".jpg",
        box: Sequence[float] = (5, 5, 20, 30),
    ) -> Path:
        records = []
        for i in range(2):
            Path(root / "Images" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40)).save(root / "Images" / folder / f"{i}{suffix}")
            image_id = f"{folder}/{i}" if folder else str(i)
            records.append({"ID": image_id, "gtboxes": [{"tag": tag, "fbox": box}]})
        return write_odgt(root / "own.odgt", *records)

    def metrics(self, name: str) -> dict[str, float]:
        """Of perfect detections."""
        evaluator = CrowdHumanEvaluator(name)
        for record in load_annotated_records(name):
            ((x, y, w, h),) = (a["bbox"] for a in record["annotations"])
            instances = Instances((1, 1), pred_boxes=Boxes([[x, y, x + w, y + h]]), scores=torch.ones(1))
            evaluator.process([record], [{"instances": instances}])
        return evaluator.evaluate()["crowdhuman"]

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPG", ".jpeg", ".webp"])
    @pytest.mark.parametrize("folder", ["", "cam1", "a.b/c"])
    def test_any_suffix_and_folders(self, tmp_path: Path, suffix: str, folder: str) -> None:
        odgt = self.write(tmp_path, folder=folder, suffix=suffix)
        name = f"odgt:{tmp_path}/Images,{odgt}"
        assert [r["file_name"] for r in load_annotated_records(name)] == [
            str(tmp_path / "Images" / folder / f"{i}{suffix}") for i in range(2)
        ]
        assert self.metrics(name)["Recall"] == 100

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_the_evaluator_follows_the_convention_of_the_boxes(self, tmp_path: Path, convention: str) -> None:
        boxes = {
            "xywh": [40, 20, 8, 8],
            "xyxy": [40, 20, 48, 28],
            "pixels": [41, 21, 48, 28],
            "xywh_fractions": [40 / 60, 20 / 40, 8 / 60, 8 / 40],
            "xyxy_fractions": [40 / 60, 20 / 40, 48 / 60, 28 / 40],
            "cxcywh_fractions": [44 / 60, 24 / 40, 8 / 60, 8 / 40],
        }
        name = f"odgt:{tmp_path}/Images,{self.write(tmp_path, box=boxes[convention])},boxes={convention}"
        assert np.allclose(read_source(name).boxes, boxes["xywh"])
        metrics = self.metrics(name)
        assert (metrics["mMR"], metrics["Recall"]) == (0, 100)

    def test_another_tag_is_asked_about(self, tmp_path: Path) -> None:
        odgt = self.write(tmp_path, tag="pedestrian")
        name = f"odgt:{tmp_path}/Images,{odgt}"
        with pytest.raises(
            UserError, match="own.odgt: no box has the tag 'person'.*'pedestrian' .2 boxes.*tag=pedestrian"
        ):
            load_annotated_records(name)
        assert self.metrics(f"{name},tag=pedestrian")["Recall"] == 100
        assert MetadataCatalog.get(f"{name},tag=pedestrian").thing_classes == ["pedestrian"]
        register_crowdhuman("own_pedestrians", odgt, tmp_path / "Images", tag="pedestrian")
        try:
            assert self.metrics("own_pedestrians")["Recall"] == 100
        finally:
            DatasetCatalog.remove("own_pedestrians")
            MetadataCatalog.remove("own_pedestrians")

    def test_other_tags_beside_persons_are_counted(self, tmp_path: Path) -> None:
        odgt = write_odgt(tmp_path / "own.odgt", sized("a", BOX, {**BOX, "tag": "rider"}, {**BOX, "tag": "mask"}))
        records = load_crowdhuman(odgt, tmp_path)
        assert records.crowd.tolist() == [False, True, True]
        (problem,) = records.problems.found
        assert problem.count == 1 and "tag 'rider'" in str(problem)

    def test_coco_metrics_are_refused_where_crowdhumans_are_wanted(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="CrowdHuman's metrics need an odgt file"):
            CrowdHumanEvaluator(f"coco:{tmp_path},{tmp_path}/a.json")
