import contextlib
import io
import json

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from la_det.errors import UserError
from la_det.evaluation import COCOEvaluator

SIZE = 150
CATEGORIES = [3, 7, 11]
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def random_box(rng):
    x, y = rng.uniform(0, SIZE - 10, 2)
    w, h = np.exp(rng.uniform(np.log(6), np.log(120), 2))
    return [float(v) for v in (x, y, min(w, SIZE - x), min(h, SIZE - y))]


def mask_of(box, cut):
    """Box without a corner, so that mask and box AP differ."""
    x, y, w, h = (round(v) for v in box)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    mask[y : y + int(h * cut), x : x + int(w * cut)] = 0
    return mask


def rle(mask):
    encoded = pycocotools.mask.encode(mask)
    return encoded | {"counts": encoded["counts"].decode()}


@pytest.fixture(params=[0, 1])
def scene(request, tmp_path):
    """A registered data set with crowd regions and images without objects, and noisy detections on it."""
    rng = np.random.default_rng(request.param)
    images, annotations, detections = [], [], []
    for image_id in range(1, 13):
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "width": SIZE, "height": SIZE})
        for _ in range(0 if image_id == 2 else rng.integers(1, 12)):
            box, category = random_box(rng), int(rng.choice(CATEGORIES[:2]))
            mask = mask_of(box, 0.4)
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": box}
            crowd = int(rng.random() < 0.15)
            area = float(mask.sum())
            annotations.append(annotation | {"iscrowd": crowd, "area": area, "segmentation": rle(mask)})
            for _ in range(rng.integers(0, 4)):
                x, y, w, h = np.array(box) + rng.normal(0, 3, 4)
                near = [max(x, 0.0), max(y, 0.0), max(w, 1.0), max(h, 1.0)]
                guess = category if rng.random() < 0.8 else int(rng.choice(CATEGORIES))
                detections.append((image_id, near, guess, rng.random()))
        detections += [(image_id, random_box(rng), int(rng.choice(CATEGORIES)), rng.random()) for _ in range(3)]
    detections = [d for d in detections if d[0] != 5]  # nothing found in one image
    path = tmp_path / "scene.json"
    categories = [{"id": c, "name": f"class {c}"} for c in CATEGORIES]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    register_coco_instances("scene", {}, str(path), str(tmp_path))
    DatasetCatalog.get("scene")
    yield path, detections
    DatasetCatalog.remove("scene")
    MetadataCatalog.remove("scene")


def instances(detections, masks):
    result = Instances((SIZE, SIZE))
    boxes = torch.tensor([d[1] for d in detections], dtype=torch.float64).reshape(-1, 4)
    result.pred_boxes = Boxes(torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1))
    result.scores = torch.tensor([d[3] for d in detections], dtype=torch.float64)
    result.pred_classes = torch.tensor([CATEGORIES.index(d[2]) for d in detections], dtype=torch.int64)
    if masks:
        drawn = [torch.from_numpy(mask_of(d[1], 0.3)) for d in detections]
        result.pred_masks = torch.stack(drawn).bool() if drawn else torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
    return result


def evaluate(detections, masks=False, **kwargs):
    evaluator = COCOEvaluator("scene", **kwargs)
    evaluator.reset()
    for image_id in range(1, 13):
        found = instances([d for d in detections if d[0] == image_id], masks)
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()


def expected(path, detections, task):
    """pycocotools on the same detections (rounded to float32, as Detectron2's boxes are)."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        results = []
        for image_id, box, category, score in detections:
            x, y, w, h = np.float32(box)
            box = [float(v) for v in (x, y, np.float32(x + w) - x, np.float32(y + h) - y)]
            result = {"image_id": image_id, "category_id": category, "score": score}
            results.append(result | ({"bbox": box} if task == "bbox" else {"segmentation": rle(mask_of(box, 0.3))}))
        evaluation = COCOeval(truth, truth.loadRes(results), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]
    stats = [value if value >= 0 else np.nan for value in evaluation.stats]
    per_class = [p[p > -1].mean() if (p > -1).any() else np.nan for p in np.moveaxis(precision[..., 0, -1], 2, 0)]
    return dict(zip([*METRICS, "AR"], [*stats[:6], stats[8]], strict=True)) | {
        f"AP-class {c}": value for c, value in zip(CATEGORIES, per_class, strict=True)
    }


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_numbers_are_those_of_pycocotools(scene, task):
    path, detections = scene
    results = evaluate(detections, masks=task == "segm")
    reference = expected(path, detections, task)
    assert set(results[task]) == set(reference)
    for name, value in reference.items():
        assert results[task][name] == pytest.approx(100 * value, abs=1e-9, nan_ok=True), name
    assert 5 < results[task]["AP"] < 95


def without_masks(path, crowd):
    """Take the masks of the crowd regions, or of the objects, out of the file."""
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        if annotation["iscrowd"] == crowd:
            del annotation["segmentation"]
    path.write_text(json.dumps(content))


def test_a_crowd_region_without_mask_is_its_box(scene):
    path, detections = scene
    without_masks(path, crowd=1)
    results = evaluate(detections, masks=True)["segm"]
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation.setdefault("segmentation", [[x, y, x + w, y, x + w, y + h, x, y + h]])
    path.write_text(json.dumps(content))
    for name, value in expected(path, detections, "segm").items():
        assert results[name] == pytest.approx(100 * value, abs=1e-9, nan_ok=True), name


def test_an_object_without_mask_is_named(scene):
    path, detections = scene
    without_masks(path, crowd=0)
    assert evaluate(detections)["bbox"]["AP"] > 5
    with pytest.raises(UserError, match=r"scene.json: annotations\[\d+\] of image .*: it has no segmentation"):
        evaluate(detections, masks=True)


def test_without_detections_ap_is_zero(scene):
    results = evaluate([])["bbox"]
    assert results["AP"] == results["AP50"] == results["AR"] == 0
    assert np.isnan(results["AP-class 11"]), "a class without objects has no AP"


def test_more_detections_per_image(scene):
    _, detections = scene
    assert evaluate(detections, max_dets_per_image=500)["bbox"]["AP"] == evaluate(detections)["bbox"]["AP"]
    few = evaluate(detections, max_dets_per_image=10)["bbox"]
    assert few["AR"] < evaluate(detections)["bbox"]["AR"]


def test_some_images_only(scene):
    path, detections = scene
    evaluator = COCOEvaluator("scene")
    evaluator.reset()
    found = instances([d for d in detections if d[0] == 1], masks=False)
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    alone = evaluator.evaluate(img_ids=[1])["bbox"]["AP"]
    assert alone > evaluator.evaluate()["bbox"]["AP"]


def test_detections_are_written_with_the_ids_of_the_data_set(scene, tmp_path):
    _, detections = scene
    evaluate(detections, output_dir=str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(written) == len(detections) and {d["category_id"] for d in written} <= set(CATEGORIES)


@pytest.mark.parametrize("max_detections", [None, 5, 10, 500])
def test_box_ap_alone_is_the_same(scene, max_detections):
    _, detections = scene
    evaluator = COCOEvaluator("scene", max_dets_per_image=max_detections)
    of_box_ap = evaluator.of_box_ap()
    evaluator.reset()
    for image_id in range(1, 13):
        found = instances([d for d in detections if d[0] == image_id], masks=False)
        for one in evaluator, of_box_ap:
            one.process([{"image_id": image_id}], [{"instances": found}])
    assert of_box_ap.evaluate()["bbox"]["AP"] == pytest.approx(evaluator.evaluate()["bbox"]["AP"], abs=1e-9)
