"""Golden cases of CrowdHuman: folders of text files, and the metric files of o2f and DATE."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from la_det.data.crowdhuman import load_crowdhuman, read_odgt
from la_det.data.crowdhuman_coco import odgt_to_coco
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

TOLERANCE = 1e-9  # of metrics, which are computed in double precision; counts and flags are exact
NOTES = {"note", "official_error", "official_reader_needed_placeholder"}


def is_case(folder: Path) -> bool:
    """Whether a folder holds a golden case."""
    return any((folder / name).is_file() for name in ("expected.json", "expected_coco.json"))


def check_case(folder: Path) -> tuple[list[Comparison], list[str]]:
    """The comparisons of one folder, and the keys of its `expected.json` that nothing was compared with."""
    if (folder / "expected_coco.json").is_file():
        return check_loader(folder), []
    expected = json.loads((folder / "expected.json").read_text())
    result = evaluate_crowdhuman(read_ground_truths(folder / "gt.odgt"), read_detections(folder / "dt.odgt"))
    comparisons = compare_metrics(expected, result) + compare_counts(expected, result)
    compared = {comparison.key for comparison in comparisons}
    return comparisons, [key for key in expected if key not in compared | NOTES]


def compare_metrics(expected: dict, result: CrowdHumanResult) -> list[Comparison]:
    """The metrics and what they are averaged from; null stands for NaN."""
    actual = {
        "AP": [result.AP],
        "mMR": [result.mMR],
        "Recall": [result.Recall],
        "mMR_minus4": [result.mMR_minus4],
        "JI_max": [result.JI],
        "miss_rates": result.miss_rates,
    }
    comparisons = [
        Comparison(key, worst_error(np.atleast_1d(np.array(expected[key], dtype=float)), np.array(values)), TOLERANCE)
        for key, values in actual.items()
    ]
    thresholds = {f"{threshold:.1f}": index for threshold, index in result.jaccard.items()}
    if thresholds.keys() != expected["JI"].keys():
        return [*comparisons, Comparison("JI", math.inf, TOLERANCE)]
    values = np.array([expected["JI"][t]["JI"] for t in thresholds], dtype=float)
    error = worst_error(values, np.array([index.JI for index in thresholds.values()]))
    wrong_counts = sum(
        expected["JI"][t][name] != getattr(index, name) for t, index in thresholds.items() for name in "kmn"
    )
    return [*comparisons, Comparison("JI", error, TOLERANCE), Comparison("JI k, m, n", wrong_counts, 0)]


def compare_counts(expected: dict, result: CrowdHumanResult) -> list[Comparison]:
    flags = {str(image_id): values.tolist() for image_id, values in result.flags.items()}
    all_flags = [flag for values in flags.values() for flag in values]
    actual = {
        "num_images": result.num_images,
        "num_gt": result.num_gt,
        "num_ignored_gt": result.num_ignored_gt,
        "num_dt": len(all_flags),
        "num_tp": all_flags.count(TRUE_POSITIVE),
        "num_fp": all_flags.count(FALSE_POSITIVE),
        "num_dt_ignored": all_flags.count(DISCARDED),
    }
    comparisons = [Comparison(key, abs(expected[key] - value), 0) for key, value in actual.items()]
    if "flags" in expected:  # not where IDs are integers
        comparisons.append(
            Comparison("flags", count_different(sorted(expected["flags"].items()), sorted(flags.items())), 0)
        )
    return comparisons


def check_loader(folder: Path) -> list[Comparison]:
    """Dataset dicts beside cvpods' records, and the conversion to COCO JSON beside DATE's."""
    odgt = folder / "annotation.odgt"
    records = read_odgt(odgt)
    dataset_dicts = load_crowdhuman(odgt, "Images")
    for image, record in zip(dataset_dicts, records, strict=True):
        # What Detectron2 has no use for stays out of the dataset dicts, and ignored is class -1 in cvpods.
        image["annotations"] = [
            {key: value for key, value in box.items() if key != "fbox"}
            | {"bbox": annotation["bbox"], "bbox_mode": int(annotation["bbox_mode"])}
            | {"category_id": -1 if annotation["iscrowd"] else annotation["category_id"]}
            for annotation, box in zip(image["annotations"], record["gtboxes"], strict=True)
        ]
    comparisons = []
    cvpods = json.loads((folder / "expected_cvpods_records.json").read_text())
    comparisons.append(Comparison("cvpods records", count_different(cvpods, dataset_dicts), 0))
    expected, coco = json.loads((folder / "expected_coco.json").read_text()), odgt_to_coco(records)
    comparisons += [Comparison(f"COCO {key}", count_different(expected[key], coco.get(key, [])), 0) for key in expected]
    return comparisons


def check_o2f(golden: GoldenFile) -> None:
    """`o2f/crowdhuman_metric.npz`: arrays per image."""
    ground_truths, detections = [], {}
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        ignored = golden.array(f"gt_ignore_{i}").astype(bool)
        ground_truths.append(GroundTruth(i, tuple(size), golden.array(f"gt_xywh_{i}"), ignored))
        detections[i] = Detections(golden.array(f"det_xywh_{i}"), golden.array(f"det_scores_{i}"))
    _compare_arrays(golden, evaluate_crowdhuman(ground_truths, detections))


def check_date(golden: GoldenFile) -> None:
    """`date/crowdhuman_eval.npz`: arrays over all images."""
    ground_truths, detections = [], {}
    for i, size in zip(golden.array("image_ids").tolist(), golden.array("image_sizes").tolist(), strict=True):
        mine, found = golden.array("gt_image") == i, golden.array("dt_image") == i
        ignored = golden.array("gt_ignore")[mine].astype(bool)
        ground_truths.append(GroundTruth(i, tuple(size), golden.array("gt_boxes_xywh")[mine], ignored))
        detections[i] = Detections(golden.array("dt_boxes_xywh")[found], golden.array("dt_scores")[found])
    _compare_arrays(golden, evaluate_crowdhuman(ground_truths, detections))


def _compare_arrays(golden: GoldenFile, result: CrowdHumanResult) -> None:
    for key, value in (("AP", result.AP), ("mMR", result.mMR), ("recall", result.Recall)):
        golden.close(key, value, atol=TOLERANCE)


def worst_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Largest difference; infinite if the shapes or the places of NaN differ."""
    if expected.shape != actual.shape or (np.isnan(expected) != np.isnan(actual)).any():
        return math.inf
    return float(np.nan_to_num(np.abs(expected - actual)).max(initial=0))


def count_different(expected: Iterable, actual: Iterable) -> float:
    """Entries that differ; infinite if there are not equally many."""
    expected, actual = list(expected), list(actual)
    if len(expected) != len(actual):
        return math.inf
    return sum(a != b for a, b in zip(expected, actual, strict=True))
