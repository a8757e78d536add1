#!/usr/bin/env python3
"""Time the COCO evaluation alone and with the task `nms_gap`, on the same generated detections."""

import _start as _start

import argparse
import contextlib
import io
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from torchvision.ops import batched_nms

from la_det.evaluation import COCOEvaluator
from la_det.evaluation.duplicates import objects_of
from la_det.evaluation.nms_gap import NMS_THRESHOLD, NMSGapEvaluator

NAME, SIZE, NUM_CLASSES = "generated", (480, 640), 80


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="default: %(default)s, as in COCO val2017")
    parser.add_argument("--detections", type=int, default=100, help="per image (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, help="images in a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest round counts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_truth(rng: np.random.Generator, num_images: int) -> dict:
    """A COCO annotation file with boxes of all sizes."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(num_images)]
    annotations = []
    for image in images:
        for _ in range(1 + rng.poisson(6)):
            x, y = rng.uniform(0, SIZE[1] - 10), rng.uniform(0, SIZE[0] - 10)
            w, h = np.exp(rng.uniform(np.log(10), np.log(300), 2))
            box = [float(v) for v in (x, y, min(w, SIZE[1] - x), min(h, SIZE[0] - y))]
            row = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(rng.integers(NUM_CLASSES))}
            annotations.append(row | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": i, "name": f"class {i}"} for i in range(NUM_CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def make_detections(rng: np.random.Generator, record: dict, number: int) -> Instances:
    """Detections from objects with random jitter; more jitter means a lower score."""
    annotations = [record["annotations"][i] for i in rng.integers(len(record["annotations"]), size=number)]
    boxes = BoxMode.convert(np.array([a["bbox"] for a in annotations]), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    jitter = rng.exponential(0.15, number)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + 0.5 * jitter[:, None] * sides * rng.normal(size=boxes.shape)
    boxes[:, 2:] = boxes[:, 2:].clip(min=boxes[:, :2] + 1)
    classes = np.array([a["category_id"] for a in annotations])
    classes = np.where(rng.random(number) < 0.7, classes, rng.integers(NUM_CLASSES, size=number))
    scores = np.exp(-3 * jitter) * rng.uniform(0.05, 1, number)
    order = np.argsort(-scores)
    found = Instances(SIZE)
    found.pred_boxes = Boxes(torch.tensor(boxes[order], dtype=torch.float32))
    found.scores = torch.tensor(scores[order], dtype=torch.float32)
    found.pred_classes = torch.tensor(classes[order])
    return found


def after_nms(found: Instances) -> Instances:
    return found[batched_nms(found.pred_boxes.tensor, found.scores, found.pred_classes, NMS_THRESHOLD)]


class GivenVariants:
    """A stand-in for `VariantInference` that gives the detections after NMS, batch by batch."""

    names = ("with_nms",)

    def __init__(self, batches: Sequence[list[Instances]]):
        self._batches = iter(batches)

    def variants(self, output_sizes: Sequence[tuple[int, int]]) -> dict[str, list[Instances]]:
        return {"with_nms": next(self._batches)}


def seconds(evaluator: DatasetEvaluator, inputs: Sequence[list[dict]], batches: Sequence[list[Instances]]) -> float:
    """CPU seconds of an evaluation; not wall time, since the machine may have other work."""
    start = time.process_time()
    evaluator.reset()
    for images, found in zip(inputs, batches, strict=True):
        evaluator.process(images, [{"instances": instances} for instances in found])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
    return time.process_time() - start


def main() -> None:
    args = parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "truth.json")
        path.write_text(json.dumps(make_truth(rng, args.images)))
        register_coco_instances(NAME, {}, str(path), "")
        with contextlib.redirect_stdout(io.StringIO()):
            records = DatasetCatalog.get(NAME)
            evaluator, objects = COCOEvaluator(NAME), objects_of(records)
    found = [make_detections(rng, record, args.detections) for record in records]
    starts = range(0, len(records), args.batch_size)
    inputs, own, kept = (
        [rows[start : start + args.batch_size] for start in starts]
        for rows in (records, found, [after_nms(instances) for instances in found])
    )
    alone, both = [], []
    for _ in range(args.rounds):
        alone.append(seconds(evaluator, inputs, own))
        both.append(seconds(NMSGapEvaluator(evaluator, objects, GivenVariants(kept)), inputs, own))
    print(f"{args.images} images x {args.detections} detections, batches of {args.batch_size}; CPU seconds:")
    print(f"COCO evaluation    {min(alone):6.2f}")
    print(f"with nms_gap       {min(both):6.2f}, {100 * (min(both) / min(alone) - 1):.0f} % more")


if __name__ == "__main__":
    main()
