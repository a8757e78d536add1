"""Golden cases of CrowdHuman: folders of text files, and the metric files of o2f and DATE."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from la_det.data.crowdhuman import load_crowdhuman
from la_det.data.crowdhuman_coco import odgt_to_coco
from la_det.data.odgt import read_odgt
from la_det.evaluation.crowdhuman import read_detections, read_ground_truths
from la_det.evaluation.crowdhuman_metrics import (
    DISCARDED,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    CrowdHumanResult,
    Detections,
    GroundTruth,
    evaluate_crowdhuman,
)
from la_det.testing.golden import Comparison, GoldenFile

TOLERANCE = 1e-9  # for metrics, which are computed in double precision; counts and flags are exact
NOTES = {"note", "official_error", "official_reader_needed_placeholder"}


class GoldenCase:
    """A folder of text files, with the interface of :class:`la_det.testing.golden.GoldenFile`.

    Raises:
        ValueError: the expected values cannot be read.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder)
        self.is_loader = (self.path / "expected_coco.json").is_file()
        self.expected = json.loads(
            (self.path / ("expected_coco.json" if self.is_loader else "expected.json")).read_text()
        )
        self.comparisons: list[Comparison] = []
        self._read = set(NOTES)

    @staticmethod
    def is_one(path: Path) -> bool:
        return any((path / name).is_file() for name in ("expected.json", "expected_coco.json"))

    def record(self, key: str, error: float, tolerance: float, part: str = "") -> None:
        """Records a comparison of `part` of an entry of the expected values."""
        self._read.add(key)
        self.comparisons.append(Comparison(f"{key} {part}".strip(), float(error), tolerance))

    def unread(self) -> list[str]:
        """Keys of the expected values that were not compared."""
        return [key for key in self.expected if key not in self._read]


def check(case: GoldenCase) -> None:
    """Compares everything that a case expects."""
    if case.is_loader:
        check_loader(case)
        return
    gt, dt = case.path / "gt.odgt", case.path / "dt.odgt"
    result = evaluate_crowdhuman(read_ground_truths(gt), read_detections(dt))
    compare_metrics(case, result)
    compare_jaccard(case, result)
    compare_counts(case, result)


def compare_metrics(case: GoldenCase, result: CrowdHumanResult) -> None:
    """Compares metrics and the miss rates that are averaged; null stands for NaN."""
    metrics = {
        "AP": result.AP,
        "mMR": result.mMR,
        "Recall": result.Recall,
        "mMR_minus4": result.mMR_minus4,
        "JI_max": result.JI,
        "miss_rates": result.miss_rates,
    }
    for key, actual in metrics.items():
        case.record(key, worst_error(case.expected[key], actual), TOLERANCE)


def compare_jaccard(case: GoldenCase, result: CrowdHumanResult) -> None:
    actual = {f"{threshold:.1f}": index for threshold, index in result.jaccard.items()}
    expected = [case.expected["JI"][threshold] for threshold in actual]
    indices = worst_error([e["JI"] for e in expected], [index.JI for index in actual.values()])
    case.record("JI", indices if len(expected) == len(case.expected["JI"]) else math.inf, TOLERANCE)
    counts = [(index.k, index.m, index.n) for index in actual.values()]
    case.record("JI", count_different([(e["k"], e["m"], e["n"]) for e in expected], counts), 0, "k, m, n")


def compare_counts(case: GoldenCase, result: CrowdHumanResult) -> None:
    flags = {str(image_id): values.tolist() for image_id, values in result.flags.items()}
    all_flags = [flag for values in flags.values() for flag in values]
    counts = {
        "num_images": result.num_images,
        "num_gt": result.num_gt,
        "num_ignored_gt": result.num_ignored_gt,
        "num_dt": len(all_flags),
        "num_tp": all_flags.count(TRUE_POSITIVE),
        "num_fp": all_flags.count(FALSE_POSITIVE),
        "num_dt_ignored": all_flags.count(DISCARDED),
    }
    for key, actual in counts.items():
        case.record(key, abs(case.expected[key] - actual), 0)
    if "flags" in case.expected:  # may be missing if IDs are integers
        case.record("flags", count_different(sorted(case.expected["flags"].items()), sorted(flags.items())), 0)


def check_loader(case: GoldenCase) -> None:
    """Compares the conversion to COCO JSON with DATE's, and dataset dicts with cvpods' records."""
    odgt = case.path / "annotation.odgt"
    records, dataset_dicts = read_odgt(odgt), list(load_crowdhuman(odgt, "Images"))
    coco = odgt_to_coco(records)
    for key, expected in case.expected.items():
        case.record(key, count_different(expected, coco.get(key, [])), 0)
    for image, record in zip(dataset_dicts, records, strict=True):
        # Dataset dicts do not have fields that Detectron2 does not use. Ignored boxes have class -1 in cvpods.
        image["annotations"] = [
            {key: value for key, value in box.items() if key != "fbox"}
            | {"bbox": annotation["bbox"], "bbox_mode": int(annotation["bbox_mode"])}
            | {"category_id": -1 if annotation["iscrowd"] else annotation["category_id"]}
            for annotation, box in zip(image["annotations"], record["gtboxes"], strict=True)
        ]
    cvpods = json.loads((case.path / "expected_cvpods_records.json").read_text())
    case.record("cvpods records", count_different(cvpods, dataset_dicts), 0)


def check_o2f(golden: GoldenFile) -> None:
    """Compares the metrics in `o2f/crowdhuman_metric.npz`, which has arrays for each image."""
    ground_truths, detections = [], {}
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        ignored = golden.array(f"gt_ignore_{i}").astype(bool)
        ground_truths.append(GroundTruth(i, tuple(size), golden.array(f"gt_xywh_{i}"), ignored))
        detections[i] = Detections(golden.array(f"det_xywh_{i}"), golden.array(f"det_scores_{i}"))
    _compare_arrays(golden, evaluate_crowdhuman(ground_truths, detections), rtol=1e-4)


def check_date(golden: GoldenFile) -> None:
    """Compares the metrics in `date/crowdhuman_eval.npz`, which has arrays over all images."""
    ground_truths, detections = [], {}
    for i, size in zip(golden.array("image_ids").tolist(), golden.array("image_sizes").tolist(), strict=True):
        mine, found = golden.array("gt_image") == i, golden.array("dt_image") == i
        ignored = golden.array("gt_ignore")[mine].astype(bool)
        ground_truths.append(GroundTruth(i, tuple(size), golden.array("gt_boxes_xywh")[mine], ignored))
        detections[i] = Detections(golden.array("dt_boxes_xywh")[found], golden.array("dt_scores")[found])
    _compare_arrays(golden, evaluate_crowdhuman(ground_truths, detections), atol=1e-6)


def _compare_arrays(golden: GoldenFile, result: CrowdHumanResult, **tolerance: float) -> None:
    for key, value in (("AP", result.AP), ("mMR", result.mMR), ("recall", result.Recall)):
        golden.close(key, value, **tolerance)


def worst_error(expected: object, actual: object) -> float:
    """Largest difference of numbers; infinite if the shapes or the places of NaN differ."""
    expected, actual = np.array(expected, dtype=float), np.array(actual, dtype=float)
    if expected.shape != actual.shape or (np.isnan(expected) != np.isnan(actual)).any():
        return math.inf
    return float(np.nan_to_num(np.abs(expected - actual)).max(initial=0))


def count_different(expected: Iterable, actual: Iterable) -> float:
    """Number of entries that differ; infinite if the numbers of entries differ."""
    expected, actual = list(expected), list(actual)
    if len(expected) != len(actual):
        return math.inf
    return sum(a != b for a, b in zip(expected, actual, strict=True))
