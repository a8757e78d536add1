"""Counts duplicates: detections of objects that a higher-scored detection has already found."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import box_iou

from la_det.geometry import aligned_iou

from .greedy_matching import match_greedily, pairs_of_equal_keys

MIN_SCORE = 0.3
MIN_OVERLAP = 0.5  # an overlap must be larger
SIZES = ("small", "medium", "large")
SIZE_BOUNDS = (32.0**2, 96.0**2)  # COCO's upper bounds of small and medium areas, square pixels
CROWDING = ("apart", "crowded")
IMAGES_AT_ONCE = 256
CROWDED_OVERLAP = 0.3  # an object is crowded if its IoU with another object of its class is larger


@dataclass(frozen=True)
class Objects:
    """The G ground truths of an image.

    Attributes:
        boxes: [G, 4] XYXY pixels, clipped to the image.
        classes: [G] int64.
        group: [G] int64, the object's index in SIZES times 2, plus its index in CROWDING.
    """

    boxes: Tensor
    classes: Tensor
    group: Tensor

    @classmethod
    def from_record(cls, record: Mapping) -> Objects:
        """The objects of a Detectron2 dataset dict, without ignored regions (`iscrowd`)."""
        annotations = [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
        corners = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
        boxes.clip((record["height"], record["width"]))
        classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64)
        return cls(boxes.tensor, classes, _group(boxes, classes))


def objects_of(records: Iterable[Mapping]) -> dict[Hashable, Objects]:
    """`image_id` -> objects, for the Detectron2 dicts of a data set."""
    return {record["image_id"]: Objects.from_record(record) for record in records}


def _group(boxes: Boxes, classes: Tensor) -> Tensor:
    size = torch.bucketize(boxes.area(), torch.tensor(SIZE_BOUNDS))
    overlap = box_iou(boxes.tensor, boxes.tensor).fill_diagonal_(0) * (classes == classes.unsqueeze(1))
    crowded = (overlap > CROWDED_OVERLAP).any(1)
    return size * len(CROWDING) + crowded


class DuplicatesEvaluator(DatasetEvaluator):
    """Counts duplicates per image.

    As in COCO's evaluation, each detection, by descending score, takes the free ground truth of its class with the
    largest IoU. Only scores of at least 0.3 and IoUs above 0.5 count. If a detection overlaps ground truths and all of
    them are taken, it is a duplicate of the ground truth that it overlaps most.
    """

    def __init__(self, objects: Mapping[Hashable, Objects]) -> None:
        """
        Args:
            objects: objects of each image of the data set, from `objects_of`.
        """
        self._objects = objects
        self.reset()

    def reset(self) -> None:
        self._num_images = 0
        self._counts = torch.zeros(len(SIZES), len(CROWDING), dtype=torch.int64)
        self._waiting: list[tuple[Objects, Instances]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            found = output["instances"]
            fields = {name: found.get(name).to("cpu") for name in ("pred_boxes", "scores", "pred_classes")}
            self._waiting.append((self._objects[image["image_id"]], Instances(found.image_size, **fields)))
        if len(self._waiting) >= IMAGES_AT_ONCE:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        objects, detections = zip(*self._waiting, strict=True)
        groups = torch.cat([o.group for o in objects])[find_duplicates(objects, detections)]
        self._num_images += len(objects)
        self._counts += torch.bincount(groups, minlength=self._counts.numel()).view_as(self._counts)
        self._waiting = []

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Task `duplicates`: `all` duplicates per image, and those of the objects of each size and of each crowding.

        The images of all processes count; only the main process returns results. Without any object, they are NaN.
        """
        self._count()
        gathered = comm.gather((self._num_images, self._counts))
        if not comm.is_main_process():
            return {}
        num_images, counts = (sum(parts) for parts in zip(*gathered, strict=True))
        has_objects = any(len(objects.classes) for objects in self._objects.values())
        per_image = counts.double() / num_images if has_objects else torch.full(counts.shape, torch.nan)
        by_size = zip(SIZES, per_image.sum(1).tolist(), strict=True)
        by_crowding = zip(CROWDING, per_image.sum(0).tolist(), strict=True)
        return {"duplicates": {"all": per_image.sum().item(), **dict(by_size), **dict(by_crowding)}}


def find_duplicates(objects: Sequence[Objects], detections: Sequence[Instances]) -> Tensor:
    """For each duplicate, by descending score, the index of its ground truth among the objects of all images."""
    scores, order = torch.cat([d.scores for d in detections]).sort(descending=True, stable=True)
    order = order[scores >= MIN_SCORE]
    boxes = torch.cat([d.pred_boxes.tensor for d in detections])[order]
    classes = torch.cat([d.pred_classes for d in detections])[order]
    image = _image_of_each(detections)[order]

    gt_boxes, gt_classes = torch.cat([o.boxes for o in objects]), torch.cat([o.classes for o in objects])
    gt_image = _image_of_each([o.boxes for o in objects])
    det, gt = pairs_of_equal_keys(
        (image + len(objects) * classes).numpy(), (gt_image + len(objects) * gt_classes).numpy()
    )
    iou = aligned_iou(boxes[det], gt_boxes[gt]).numpy()
    overlapping = iou > MIN_OVERLAP
    det, gt, iou = det[overlapping], gt[overlapping], iou[overlapping]

    matched = match_greedily(det, gt, iou, len(boxes), len(gt_boxes))
    by_iou = np.lexsort((-iou, det))
    det, first = np.unique(det[by_iou], return_index=True)
    return torch.from_numpy(gt[by_iou][first][~matched[det]])


def _image_of_each(parts: Sequence) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
