"""The box AP alone against pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from la_det.evaluation.box_ap import BoxAPEvaluator, Boxes, box_ap


def pycocotools_ap(truth, detections, num_images, max_detections):
    """Of `Boxes` with categories 0 to 2."""
    images = [{"id": i} for i in range(num_images)]
    annotations = [
        {"id": i + 1, "image_id": int(image), "category_id": int(c), "bbox": box.tolist(), "area": 1, "iscrowd": int(k)}
        for i, (image, c, box, k) in enumerate(zip(truth.image, truth.category, truth.boxes, truth.crowd, strict=True))
    ]
    found = [
        {"image_id": int(image), "category_id": int(c), "bbox": box.tolist(), "score": float(score)}
        for image, c, box, score in zip(
            detections.image, detections.category, detections.boxes, detections.scores, strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": c} for c in range(3)]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]
    return precision[precision > -1].mean() if (precision > -1).any() else np.nan


@st.composite
def scenes(draw):
    """Objects, some of them crowd regions or twice there, and detections near them, some with equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_images, num_gts, num_dets = draw(st.integers(1, 4)), draw(st.integers(0, 25)), draw(st.integers(1, 80))
    boxes = np.concatenate([rng.integers(0, 40, (num_gts, 2)), rng.integers(30, 60, (num_gts, 2))], 1).astype(float)
    if num_gts > 1 and draw(st.booleans()):
        boxes[1::2] = boxes[: 2 * (num_gts // 2) : 2]
    truth = Boxes(
        rng.integers(num_images, size=num_gts),
        rng.integers(draw(st.integers(1, 3)), size=num_gts),
        boxes,
        crowd=rng.random(num_gts) < draw(st.sampled_from([0, 0.3])),
    )
    source = rng.integers(max(num_gts, 1), size=num_dets)
    near = boxes[source] if num_gts else np.full((num_dets, 4), 50.0)
    detections = Boxes(
        truth.image[source] if num_gts else np.zeros(num_dets, int),
        np.where(rng.random(num_dets) < 0.8, truth.category[source] if num_gts else 0, rng.integers(3, size=num_dets)),
        (near + rng.integers(-6, 7, (num_dets, 4))).clip(min=0),
        scores=rng.integers(1, 30, num_dets) / 30,
    )
    return truth, detections, num_images


@settings(max_examples=150, deadline=None)
@given(scenes(), st.sampled_from([3, 100]))
def test_same_as_pycocotools(scene, max_detections):
    truth, detections, num_images = scene
    actual = box_ap(detections, truth, max_detections)
    assert actual == pytest.approx(
        pycocotools_ap(truth, detections, num_images, max_detections), abs=1e-12, nan_ok=True
    )


def test_without_annotations_there_is_no_result():
    evaluator = BoxAPEvaluator(None, int, 100, distributed=False)
    assert evaluator.evaluate() == {}
