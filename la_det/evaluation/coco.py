"""COCO AP by faster-coco-eval: pycocotools' numbers from C++, without Detectron2's compiled `_C`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import COCOEvaluator as _COCOEvaluator
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from faster_coco_eval import COCO, COCOeval_faster

from la_det.data.coco import read_coco
from la_det.data.loader import require_masks
from la_det.data.sources import read_source
from la_det.data.table import Records
from la_det.errors import UserError

from .box_ap import BoxAPEvaluator, Boxes

logger = logging.getLogger(__name__)


class COCOEvaluator(_COCOEvaluator):
    """Detectron2's evaluator of boxes and masks with another library. It adds AR at the largest number of detections.

    Ground truths are the checked records of the data set, numbered by this class. Ids of a file are only written to
    `coco_instances_results.json`. A metric of no object is NaN. A model without any detection has AP 0, as in
    pycocotools; Detectron2 gives NaN.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: name of a data set, see `la_det.data.sources`.
            tasks: "bbox" (boxes) and "segm" (masks); by default those that the detections have.
            distributed: gather the detections of all processes; then only the main process returns metrics.
            output_dir: folder for the detections in COCO's result format; None: they are not written.
            max_dets_per_image: number of the best detections of an image that count, COCO's 100 by default.

        Raises:
            UserError: the data set cannot be read.
        """
        records = truths_of(dataset_name)
        self._logger = logger
        self._name = dataset_name
        self._classes, self._class_ids = _classes_of(dataset_name, records)
        self._image_ids = [record["image_id"] for record in records]
        self._numbers = {image_id: i for i, image_id in enumerate(self._image_ids, start=1)}
        if len(self._numbers) < len(self._image_ids):
            raise UserError(f"{dataset_name}: two images have the same image_id; give each its own")
        self._do_evaluation = len(records) > 0 and "annotations" in records[0]
        self._truth = COCO(_numbered(records, len(self._classes))) if self._do_evaluation else None
        self._records = records
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_image = [1, 10, max_dets_per_image or 100]
        self._cpu_device = torch.device("cpu")
        self.reset()

    def of_box_ap(self) -> BoxAPEvaluator:
        """An evaluator of the box AP alone, which takes a small part of the time."""
        annotations = self._truth.dataset["annotations"] if self._do_evaluation else []
        truth = Boxes(
            np.array([a["image_id"] for a in annotations], dtype=np.int64),
            np.array([a["category_id"] - 1 for a in annotations], dtype=np.int64),
            np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4),
            crowd=np.array([bool(a["iscrowd"]) for a in annotations], dtype=bool),
        )
        return BoxAPEvaluator(
            truth if self._do_evaluation else None, self._number, max(self._max_dets_per_image), self._distributed
        )

    def _eval_predictions(self, predictions: list[dict], img_ids: Sequence | None = None) -> None:
        detections = list(chain.from_iterable(p["instances"] for p in predictions))
        if self._output_dir:
            path = Path(self._output_dir, "coco_instances_results.json")
            path.write_text(json.dumps([d | {"category_id": self._class_ids[d["category_id"]]} for d in detections]))
            logger.info("Detections of %d images are in %s", len(predictions), path)
        if not self._do_evaluation:
            logger.info("%s has no annotations to evaluate against", self._name)
            return
        numbered = [
            d | {"image_id": self._number(d["image_id"]), "category_id": d["category_id"] + 1} for d in detections
        ]
        images = None if img_ids is None else [self._number(i) for i in img_ids]
        tasks = sorted(self._tasks or self._tasks_from_predictions(detections))
        if "segm" in tasks:
            require_masks(self._records)
        for task in tasks:
            evaluation = self._evaluate_task(numbered, task, images)
            results = self._derive_coco_results(evaluation, task, self._classes)
            recall = float(evaluation.stats[8])
            self._results[task] = results | {"AR": 100 * recall if recall >= 0 else float("nan")}

    def _number(self, image_id: int | float | str) -> int:
        if image_id not in self._numbers:
            raise UserError(f"{self._name}: it has no image with image_id {image_id!r}; evaluate on its own records")
        return self._numbers[image_id]

    def _evaluate_task(self, detections: list[dict], task: str, images: list[int] | None) -> COCOeval_faster:
        # loadRes writes into the detections, and COCO's code takes a detection's size (small, medium, large) from its
        # box if it has one.
        left_out = "bbox" if task == "segm" else "segmentation"
        if detections and left_out in detections[0]:
            detections = [{key: value for key, value in d.items() if key != left_out} for d in detections]
        evaluation = COCOeval_faster(self._truth, self._truth.loadRes(detections), task)
        evaluation.params.maxDets = self._max_dets_per_image
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation


def truths_of(name: str) -> Records | list[dict]:
    """Checked records of a data set with all its annotations.

    If a function of others loads the data set and its metadata name a `json_file`, the records are read from this file.
    """
    records, metadata = read_source(name), MetadataCatalog.get(name)
    file = metadata.get("json_file")
    if isinstance(records, Records) or file is None:
        return records
    return read_coco(PathManager.get_local_path(file), metadata.get("image_root", ""))


def _classes_of(name: str, records: Records | list[dict]) -> tuple[list[str], list]:
    """Names of the classes and their ids in the data set."""
    if isinstance(records, Records):
        return list(records.classes), list(records.class_ids)
    metadata = MetadataCatalog.get(name)
    names = list(metadata.get("thing_classes") or ())
    if not names:
        raise UserError(f"{name}: its metadata name no thing_classes; set them where the data set is registered")
    ids = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(names))}
    return names, sorted(ids, key=ids.get)


def _numbered(records: Records | list[dict], num_classes: int) -> dict[str, list[dict]]:
    """The records in COCO's form, with numbers from 1: COCO's code takes an object with the number 0 for no object.

    The mask of a crowd region without one is its box.
    """
    images, annotations = [], []
    for number, record in enumerate(records, start=1):
        images.append({"id": number, "height": record["height"], "width": record["width"]})
        for a in record["annotations"]:
            box = BoxMode.convert(list(map(float, a["bbox"])), a["bbox_mode"], BoxMode.XYWH_ABS)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": a["category_id"] + 1,
                "bbox": box,
                "area": a.get("area", box[2] * box[3]),
                "iscrowd": a.get("iscrowd", 0),
            }
            mask = a.get("segmentation") or ([_outline(*box)] if annotation["iscrowd"] else None)
            annotations.append(annotation | ({"segmentation": mask} if mask else {}))
    if isinstance(records, Records):
        for annotation, area in zip(annotations, records.areas.tolist(), strict=True):
            annotation["area"] = area
    categories = [{"id": i, "name": str(i)} for i in range(1, num_classes + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _outline(x: float, y: float, width: float, height: float) -> list[float]:
    """The corners of a box, as a polygon in COCO's form."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def with_dataset_ids(detections: Iterable[dict], metadata: Metadata) -> list[dict]:
    """Copies of detections with the data set's category ids in place of the model's contiguous class indices."""
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if contiguous is None:
        return [dict(d) for d in detections]
    dataset_ids = {index: category for category, index in contiguous.items()}
    return [d | {"category_id": dataset_ids[d["category_id"]]} for d in detections]
