from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from la_det.data.mapper import DatasetMapper
from la_det.structures import Targets

FLIP_AND_DOUBLE = [T.RandomFlip(prob=1.0), T.Resize((80, 120))]


@pytest.fixture
def record(tmp_path: Path) -> dict:
    """A 60 x 40 image with a person, an ignored box that reaches over the border, and boxes without area inside."""
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    boxes = [([10, 10, 10, 20], 0), ([50, 20, 30, 40], 1), ([70, 10, 5, 5], 1), ([5, 5, 0, 8], 0)]
    return {
        "file_name": str(tmp_path / "a.jpg"),
        "height": 40,
        "width": 60,
        "annotations": [
            {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 2, "iscrowd": iscrowd} for box, iscrowd in boxes
        ],
    }


def mapper(**kwargs: object) -> DatasetMapper:
    return DatasetMapper(**{"is_train": True, "augmentations": FLIP_AND_DOUBLE, "image_format": "BGR", **kwargs})


def test_keep_marks_ignored_boxes_and_transforms_them(record: dict) -> None:
    instances = mapper(ignored="mark")(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[80, 20, 100, 60], [0, 40, 20, 80]]
    assert instances.gt_classes.tolist() == [2, 2]
    assert instances.ignored.tolist() == [False, True]
    assert Targets.from_instances([instances]).ignored.tolist() == [False, True]
    assert [a["iscrowd"] for a in record["annotations"]] == [0, 1, 1, 0]  # the record serves the next epoch too


def test_drop_is_detectron2s(record: dict) -> None:
    instances = mapper()(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[80, 20, 100, 60]]
    assert not instances.has("ignored")


def test_box_that_is_not_a_number_is_dropped(record: dict) -> None:
    record["annotations"][0]["bbox"] = [10, float("nan"), 10, 20]
    assert len(mapper()(record)["instances"]) == 0
    assert mapper(ignored="mark")(record)["instances"].ignored.tolist() == [True]


@pytest.mark.parametrize("ignored", ["remove", "mark"])
@pytest.mark.parametrize("annotations", [None, []])
def test_image_without_annotations(record: dict, annotations: list | None, ignored: str) -> None:
    del record["annotations"]
    if annotations is not None:
        record["annotations"] = annotations
    instances = mapper(ignored=ignored, use_instance_mask=True, instance_mask_format="bitmask")(record)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.tensor.shape == (0, 80, 120)
    if ignored == "mark":
        assert instances.ignored.shape == (0,) and instances.ignored.dtype == torch.bool
    assert len(mapper(use_instance_mask=True)(record)["instances"].gt_masks) == 0


def test_masks_of_kept_boxes(record: dict) -> None:
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[20:40, 50:60] = 1
    from pycocotools import mask as coco_mask

    del record["annotations"][2:]
    for annotation in record["annotations"]:
        annotation["segmentation"] = coco_mask.encode(np.asfortranarray(mask))
    masks = mapper(ignored="mark", use_instance_mask=True, instance_mask_format="bitmask")(record)["instances"].gt_masks
    assert masks.tensor.shape == (2, 80, 120)
    assert masks.tensor[1].nonzero().min(dim=0)[0].tolist() == [40, 0]


def test_inference_has_no_instances(record: dict) -> None:
    example = mapper(is_train=False)(record)
    assert example["image"].shape == (3, 80, 120) and "instances" not in example and "annotations" not in example


def test_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="'hide'"):
        mapper(ignored="hide")
