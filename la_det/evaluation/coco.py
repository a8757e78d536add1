"""COCO AP through faster-coco-eval: pycocotools' numbers from C++, without Detectron2's compiled `_C`."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import Metadata
from detectron2.evaluation import COCOEvaluator as _COCOEvaluator
from faster_coco_eval import COCO, COCOeval_faster

from .box_ap import BoxAPEvaluator

logger = logging.getLogger(__name__)


class COCOEvaluator(_COCOEvaluator):
    """Detectron2's evaluator of boxes and masks on another engine; it adds AR at the largest number of detections.

    A model without any detection has AP 0, as in pycocotools, where Detectron2 says NaN.
    """

    def __init__(self, dataset_name: str, **kwargs: Any) -> None:
        super().__init__(dataset_name, use_fast_impl=False, **kwargs)
        self._truth = COCO(self._coco_api.dataset)

    def of_box_ap(self) -> BoxAPEvaluator:
        """An evaluator of the box AP alone, which takes a small part of the time."""
        return BoxAPEvaluator(
            self._truth.dataset, dataset_ids(self._metadata), max(self._max_dets_per_image), self._distributed
        )

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        detections = with_dataset_ids(
            itertools.chain.from_iterable(p["instances"] for p in predictions), self._metadata
        )
        if self._output_dir:
            Path(self._output_dir, "coco_instances_results.json").write_text(json.dumps(detections))
        if not self._do_evaluation:
            logger.info("%s has no annotations to evaluate against.", self._metadata.name)
            return
        for task in sorted(self._tasks or self._tasks_from_predictions(detections)):
            evaluation = self._evaluate_task(detections, task, img_ids)
            results = self._derive_coco_results(evaluation, task, self._metadata.get("thing_classes"))
            self._results[task] = results | {"AR": 100 * float(evaluation.stats[8])}

    def _evaluate_task(self, detections: list[dict], task: str, img_ids: list[int] | None) -> COCOeval_faster:
        # loadRes writes into the detections, and COCO's code takes a detection's size (small, medium, large) from its
        # box if it has one.
        left_out = "bbox" if task == "segm" else "segmentation"
        if detections and left_out in detections[0]:
            detections = [{key: value for key, value in d.items() if key != left_out} for d in detections]
        evaluation = COCOeval_faster(self._truth, self._truth.loadRes(detections), task)
        evaluation.params.maxDets = self._max_dets_per_image
        if img_ids is not None:
            evaluation.params.imgIds = img_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation


def dataset_ids(metadata: Metadata) -> dict[int, int] | None:
    """The data set's category id of each of the model's contiguous class indices; None where they are the same."""
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    return contiguous and {index: category for category, index in contiguous.items()}


def with_dataset_ids(detections: Iterable[dict], metadata: Metadata) -> list[dict]:
    """Copies with the data set's category ids in place of the model's contiguous class indices."""
    ids = dataset_ids(metadata)
    if ids is None:
        return [dict(d) for d in detections]
    return [d | {"category_id": ids[d["category_id"]]} for d in detections]
