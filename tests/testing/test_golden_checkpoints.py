"""The check of whole models notices wrong numbers; that it passes on right ones is in tests/golden."""

from pathlib import Path

import numpy as np
import pytest

from la_det.testing.check import check_file

FILE = Path(__file__).parents[1] / "data" / "checkpoints" / "poto_3dmf_crowdhuman.npz"
WRONG = {
    "fpn_l0_first4": 1e-2,
    "fpn_std": 1e-2,
    "cls_l2": 1e-3,
    "filter_l4": 1e-3,
    "box_l1": 0.1,
    "score_max_l3": 1e-3,
    "decoded_boxes": 0.1,
    "det_boxes_0": 0.1,
    "official_det_scores_0": 1.5e-4,
    "max_detections": 1,
    "location_offset": 0.1,
    "pixel_mean": 0.1,
}


@pytest.mark.slow
def test_every_wrong_number_is_a_miss(tmp_path):
    with np.load(FILE) as data:
        arrays = dict(data)
    for key, error in WRONG.items():
        arrays[key] = arrays[key].copy()
        arrays[key].reshape(-1)[:1] += np.asarray(error, arrays[key].dtype)
    arrays["input_order"] = np.array("RGB")
    arrays["not_known_l0"] = arrays["not_known"] = np.zeros(1)
    path = tmp_path / "checkpoints" / FILE.name
    path.parent.mkdir()
    np.savez(path, **arrays)
    report = check_file(path)
    assert report.error is None
    assert {c.key for c in report.comparisons if not c.passed} == {*WRONG, "input_order"}
    assert report.missing == ("not_known_l0", "not_known")


@pytest.mark.slow
def test_another_number_of_detections_is_an_error(tmp_path):
    with np.load(FILE) as data:
        arrays = dict(data)
    arrays |= {key: arrays[key][:-1] for key in ("det_boxes_0", "det_scores_0", "det_classes_0")}
    path = tmp_path / "checkpoints" / FILE.name
    path.parent.mkdir()
    np.savez(path, **arrays)
    assert "26 detections for det_boxes_0 instead of 25" in check_file(path).error
