"""What files call their images, classes and annotations changes no figure."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from la_det.data.records import load_records
from la_det.errors import UserError
from la_det.evaluation import COCOEvaluator
from la_det.evaluation.duplicates import objects_of
from la_det.evaluation.nms_gap import NMSGapEvaluator

SIZE = 128
RNG = np.random.default_rng(0)
BOXES = [[int(v) for v in (*RNG.integers(0, 60, 2), *RNG.integers(8, 60, 2))] for _ in range(9)]


def content() -> dict:
    annotations = [
        {
            "id": i + 1,
            "image_id": 1 + i // 3,
            "category_id": 1 + i % 2,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for i, box in enumerate(BOXES)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE} for i in (1, 2, 3)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}],
    }


def renumbered(images: list, categories: list, annotations: list) -> dict:
    data = content()
    for kind, ids in (("images", images), ("categories", categories), ("annotations", annotations)):
        for row, new in zip(data[kind], ids, strict=True):
            row["id"] = new
    for annotation in data["annotations"]:
        annotation["image_id"] = images[annotation["image_id"] - 1]
        annotation["category_id"] = categories[annotation["category_id"] - 1]
    return data


def without(key: str) -> dict:
    data = content()
    for annotation in data["annotations"]:
        del annotation[key]
    return data


def same_file() -> dict:
    data = content()
    for image in data["images"]:
        image["file_name"] = "1.png"
    return data


def evaluate(tmp_path, data: dict) -> dict:
    """Of detections that follow the boxes, some of them twice, and one without an object."""
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    path.write_text(json.dumps(data))
    name = f"coco:{tmp_path},{path}"
    records = load_records(name, filter_empty=False)
    output = tmp_path / f"{path.stem}_out"
    evaluator = NMSGapEvaluator(COCOEvaluator(name, output_dir=str(output)), objects_of(records), None)
    evaluator.reset()
    for n, record in enumerate(records):
        boxes = [[x + 2, y, x + w, y + h + 1] for x, y, w, h in BOXES[3 * n : 3 * n + 3]]
        boxes += [boxes[0], [100, 100, 127, 127]]
        classes = [(3 * n + i) % 2 for i in range(3)] + [(3 * n) % 2, 0]
        found = Instances((SIZE, SIZE), pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
        found.scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95]) - 0.01 * n
        found.pred_classes = torch.tensor(classes)
        evaluator.process([{key: record[key] for key in ("image_id", "file_name")}], [{"instances": found}])
    results = evaluator.evaluate()
    written = json.loads((output / "coco_instances_results.json").read_text())
    assert {d["image_id"] for d in written} == {image["id"] for image in data["images"]}
    assert {d["category_id"] for d in written} == {category["id"] for category in data["categories"]}
    return results


@pytest.mark.parametrize(
    "change",
    [
        lambda: renumbered([1, 2, 3], [1, 2], list(range(9))),
        lambda: renumbered([0, 1, 2], [0, 1], [0] * 9),
        lambda: renumbered(["000001", "000002", "000003"], ["a", "b"], [f"x{i}" for i in range(9)]),
        lambda: renumbered([2**53, 2**53 + 1, 2**53 + 2], [2**60, 2**60 + 1], [2**62 + i for i in range(9)]),
        lambda: renumbered([1.0, 2.5, 3.0], [-1, 1.5], [i / 2 for i in range(9)]),
        lambda: without("id"),
        lambda: without("area"),
        lambda: without("iscrowd"),
        same_file,
    ],
)
def test_figures_stay_the_same(tmp_path, change: Callable[[], dict]):
    expected = evaluate(tmp_path, content())
    assert 20 < expected["bbox"]["AP"] < 90 and expected["nms_gap"]["duplicates"] == 1
    actual = evaluate(tmp_path, change())
    for task, metrics in expected.items():
        assert actual[task] == pytest.approx(metrics, abs=1e-12, nan_ok=True), task


def test_without_objects_all_is_nan(tmp_path):
    results = evaluate(tmp_path, content() | {"annotations": []})
    values = [value for metrics in results.values() for value in metrics.values()]
    assert len(values) > 10 and all(math.isnan(value) for value in values)


def test_without_annotations_there_are_only_detections(tmp_path):
    data = content()
    del data["annotations"]
    assert not any(evaluate(tmp_path, data).values())


def test_images_of_other_data_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content()))
    evaluator = COCOEvaluator(f"coco:{tmp_path},{path}")
    found = Instances((SIZE, SIZE), pred_boxes=Boxes(torch.ones(1, 4)), scores=torch.ones(1))
    found.pred_classes = torch.zeros(1, dtype=torch.int64)
    evaluator.process([{"image_id": "elsewhere"}], [{"instances": found}])
    with pytest.raises(UserError, match="it has no image with image_id 'elsewhere'"):
        evaluator.evaluate()
