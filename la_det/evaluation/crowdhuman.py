"""Detectron2 evaluator for CrowdHuman, and the files that its official evaluators read."""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from la_det.data.boxes import CONVENTIONS
from la_det.data.odgt import TAG, is_ignored, read_odgt
from la_det.data.sources import is_source, parse_one
from la_det.errors import UserError

from .crowdhuman_metrics import Detections, GroundTruth, evaluate_crowdhuman


def read_ground_truths(
    odgt: str | Path, image_root: str | Path | None = None, tag: str = TAG, convention: str = "xywh"
) -> list[GroundTruth]:
    """Full-body boxes of an annotation file, in its order. Errors are those of :func:`la_det.data.odgt.read_odgt`.

    Args:
        odgt: the annotation file.
        image_root: folder of the images; needed if a line has no size.
        tag: tag of the objects.
        convention: convention of the file's boxes, a key of `la_det.data.boxes.CONVENTIONS`.
    """
    truths = []
    for record in read_odgt(odgt, image_root):
        boxes = np.array([box["fbox"] for box in record["gtboxes"]], dtype=np.float64).reshape(-1, 4)
        size = (record["height"], record["width"])
        truths.append(
            GroundTruth(
                image_id=record["ID"],
                size=size,
                boxes=CONVENTIONS[convention](boxes, np.tile(size, (len(boxes), 1))),
                ignored=np.array([is_ignored(box, tag) for box in record["gtboxes"]], dtype=bool),
            )
        )
    return truths


def read_detections(path: str | Path) -> dict[Hashable, Detections]:
    """Read a detection file of the official form: a line `{"ID", "dtboxes": [{"box": XYWH, "score"}]}` per image.

    If an ID occurs again, its later line counts.

    Raises:
        UserError: a line is damaged; the message names file and line.
    """
    detections = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                boxes = np.array([box["box"] for box in record["dtboxes"]], dtype=np.float64).reshape(-1, 4)
                scores = np.array([box["score"] for box in record["dtboxes"]], dtype=np.float64)
                detections[record["ID"]] = Detections(boxes, scores)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a detection record ({error!r}); write the file again"
                ) from error
    return detections


def write_detections(path: str | Path, detections: Mapping[Hashable, Detections]) -> None:
    """Write the file that :func:`read_detections` and the official evaluators read."""
    with open(path, "w", encoding="utf-8") as file:
        for image_id, dets in detections.items():
            boxes = [
                {"box": box, "score": score, "tag": 1}
                for box, score in zip(dets.boxes.tolist(), dets.scores.tolist(), strict=True)
            ]
            file.write(json.dumps({"ID": image_id, "dtboxes": boxes}) + "\n")


class CrowdHumanEvaluator(DatasetEvaluator):
    """Detectron2 evaluator of AP, mMR, JI and Recall in percent, against the raw odgt annotations.

    It takes all detections. Score threshold and number per image are the detector's.
    """

    def __init__(self, dataset_name: str, distributed: bool = True, output_dir: str | None = None):
        """
        Args:
            dataset_name: name registered by :func:`la_det.data.crowdhuman.register_crowdhuman`, or a source of the
                kind `odgt:` (see la_det/data/sources.py).
            distributed: gather the detections of all processes; then only the main process returns metrics.
            output_dir: folder for `crowdhuman_detections.odgt`, which the official evaluators can also read.
        """
        self._odgt, self._image_root, self._tag, self._convention = _form_of(dataset_name)
        self._distributed = distributed
        self._output_dir = output_dir
        self._logger = logging.getLogger(__name__)
        self.reset()

    def reset(self) -> None:
        self._detections: dict[Hashable, Detections] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            # Double precision before the width is taken, as in the official dump.
            boxes = instances.pred_boxes.tensor.double().numpy()
            # Not by image_id: if the same data are in COCO's form, image_ids are numbers.
            self._detections[_stem(image["file_name"])] = Detections(
                boxes=BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS),
                scores=instances.scores.double().numpy(),
            )

    def evaluate(self) -> OrderedDict:
        detections = self._detections
        if self._distributed:
            gathered = comm.gather(detections, dst=0)
            if not comm.is_main_process():
                return OrderedDict()
            detections = {stem: dets for part in gathered for stem, dets in part.items()}

        ground_truths = read_ground_truths(self._odgt, self._image_root, self._tag, self._convention)
        ids = {_stem(os.path.join(self._image_root, f"{gt.image_id}.jpg")): gt.image_id for gt in ground_truths}
        detections = {ids.get(stem, stem): dets for stem, dets in detections.items()}
        if self._output_dir:
            Path(self._output_dir).mkdir(parents=True, exist_ok=True)
            write_detections(Path(self._output_dir, "crowdhuman_detections.odgt"), detections)

        result = evaluate_crowdhuman(ground_truths, detections, progress=True)
        metrics = OrderedDict((name, 100 * getattr(result, name)) for name in ("AP", "mMR", "JI", "Recall"))
        self._logger.info(
            "CrowdHuman: %s (%d images, %d persons)",
            ", ".join(f"{name} {value:.2f}" for name, value in metrics.items()),
            result.num_images,
            result.num_gt,
        )
        return OrderedDict(crowdhuman=metrics)


def _form_of(dataset_name: str) -> tuple[str, str, str, str]:
    """The odgt file, the folder of its images, the tag of its objects, and the convention of its boxes."""
    if is_source(dataset_name):
        source = parse_one(dataset_name)
        if source.kind != "odgt":
            raise UserError(
                f"{dataset_name}: CrowdHuman's metrics need an odgt file; name the data set odgt:IMAGES,ODGT"
            )
        return source.paths[1], source.paths[0], source.options.tag or TAG, source.options.boxes or "xywh"
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("odgt_file") is None:
        raise UserError(f"{dataset_name}: CrowdHuman's metrics need an odgt file; see register_crowdhuman")
    return metadata.odgt_file, metadata.image_root, metadata.get("odgt_tag", TAG), "xywh"


def _stem(path: str) -> str:
    """An image's path without its suffix; it contains the folders that an ID may name."""
    return os.path.splitext(os.path.normpath(path))[0]
