"""The detections of an evaluation as a file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm

from la_det.checkpoint.checkpointer import replacing
from la_det.evaluation.coco import with_dataset_ids


class PredictionsWriter(DatasetEvaluator):
    """Writes all detections in COCO's result format when an evaluation is complete.

    Args:
        dataset_name: name of the data set, whose category ids the file has.
        path: the file.
    """

    def __init__(self, dataset_name: str, path: Path) -> None:
        self.dataset_name = dataset_name
        self.path = path

    def reset(self) -> None:
        self._detections: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for example, output in zip(inputs, outputs, strict=True):
            self._detections += instances_to_coco_json(output["instances"].to("cpu"), example["image_id"])

    def evaluate(self) -> None:
        parts = comm.gather(self._detections)
        if comm.is_main_process():
            detections = with_dataset_ids(itertools.chain.from_iterable(parts), MetadataCatalog.get(self.dataset_name))
            with replacing(self.path) as file:
                file.write(json.dumps(detections).encode())
