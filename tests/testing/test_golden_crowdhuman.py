import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from la_det.testing.check import check_file, find_files
from la_det.testing.golden import GoldenFile
from la_det.testing.golden_crowdhuman import check_date, check_o2f

CASES = Path(__file__).parents[1] / "data/crowdhuman"


def copy(case: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASES / case, tmp_path / "crowdhuman" / case))


def test_cases_are_found_as_folders() -> None:
    assert find_files([CASES]) == sorted(CASES.iterdir())
    assert find_files([CASES / "basic"]) == [CASES / "basic"]


def change(value: object) -> object:
    """Something else of the same form; a metric differs by more than the tolerance."""
    if isinstance(value, dict):
        return {**value, (key := min(value)): change(value[key])}
    if isinstance(value, list):
        return [*value[:-1], change(value[-1])]
    return value + (1 if isinstance(value, int) else 2e-9)


def test_every_expected_value_is_compared(tmp_path: Path) -> None:
    path = copy("basic", tmp_path) / "expected.json"
    expected = json.loads(path.read_text())
    for key in expected.keys() - {"note", "official_reader_needed_placeholder"}:
        path.write_text(json.dumps({**expected, key: change(expected[key])}))
        report = check_file(path.parent)
        assert not report.passed and report.error is None, key
        assert {comparison.key for comparison in report.comparisons if not comparison.passed} == {key}


def test_nan_is_neither_a_number_nor_equal_to_one(tmp_path: Path) -> None:
    path = copy("basic", tmp_path) / "expected.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "AP": None}))
    assert not check_file(path.parent).passed


def test_unknown_value_counts_as_missing(tmp_path: Path) -> None:
    path = copy("basic", tmp_path) / "expected.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "AR": 0.5}))
    report = check_file(path.parent)
    assert not report.passed and report.missing == ("AR",)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("expected_coco.json", '"iscrowd": 1', '"iscrowd": 0'),
        ("expected_cvpods_records.json", '"category_id": -1', '"category_id": 0'),
        ("expected_cvpods_records.json", '"bbox_mode": 1', '"bbox_mode": 0'),
    ],
)
def test_loader_is_compared(tmp_path: Path, file: str, old: str, new: str) -> None:
    path = copy("loader", tmp_path) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert sum(not comparison.passed for comparison in check_file(path.parent).comparisons) == 1


def test_metric_files_of_o2f_and_date(tmp_path: Path) -> None:
    # One hit, one miss, one false positive that outranks it; the second image's detection lies on an ignored box.
    gts, dets = np.array([[0, 0, 10, 10], [20, 20, 10, 10]]), np.array([[40, 40, 5, 5], [0, 0, 10, 10]])
    per_image = {"gt_xywh_0": gts, "gt_ignore_0": [0, 0], "det_xywh_0": dets, "det_scores_0": [0.9, 0.8]}
    per_image |= {"gt_xywh_1": gts[:1], "gt_ignore_1": [1], "det_xywh_1": dets[1:], "det_scores_1": [0.7]}
    joined = {"gt_image": [7, 7, 9], "gt_boxes_xywh": gts[[0, 1, 0]], "gt_ignore": [0, 0, 1], "image_ids": [7, 9]}
    joined |= {"dt_image": [7, 7, 9], "dt_boxes_xywh": dets[[0, 1, 1]], "dt_scores": [0.9, 0.8, 0.7]}
    # Half a false positive per image: the miss rate is 1 up to FPPI 0.3162, and at the last point 0.5.
    expected = {"AP": 0.125, "mMR": np.exp(np.log(0.5) * 2 / 9), "recall": 0.5}
    for check, arrays, tolerance in ((check_o2f, per_image, 1e-4), (check_date, joined, 1e-6)):
        for key in (None, "AP", "mMR", "recall"):
            path = tmp_path / "file.npz"
            values = {name: value + (2 * tolerance if name == key else 0) for name, value in expected.items()}
            np.savez(path, image_sizes=[[60, 60], [60, 60]], **arrays, **values)
            golden = GoldenFile(path)
            check(golden)
            assert [c.key for c in golden.comparisons if not c.passed] == ([key] if key else [])
            assert not golden.unread()
