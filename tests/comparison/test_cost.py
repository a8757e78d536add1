"""The order and the resuming of measurements; tests/cli/test_compare.py measures."""

import json

import pytest

from la_det.comparison import cost
from la_det.comparison.cost import CostRecord, iterations_in, measure_all
from la_det.comparison.results import read_record
from la_det.errors import UserError


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """The schemes in the order in which they are measured; each takes 100 ms more than the one before."""
    order = []

    def measure(scheme, data, overrides, steps):
        order.append(scheme)
        figures = {"step": 100.0 * len(order), "matching": 1.0, "peak_mib": 1.0}
        return CostRecord(scheme, data, overrides, steps, {"torch": "2"}, "cpu", 2, 10, [figures])

    monkeypatch.setattr(cost, "measure_in_fresh_process", measure)
    return order


def test_rounds_are_interleaved_and_done_once(measured, tmp_path):
    measure_all(["fcos", "poto"], "shapes_tiny", [], 2, 20, tmp_path)
    assert measured == ["fcos", "poto"] * 2
    record = read_record(tmp_path / "poto_r18_fpn_shapes_tiny_cost.json", CostRecord)
    assert record.median("step") == 300.0
    (tmp_path / "fcos_r18_fpn_shapes_tiny_cost.json").unlink()
    measure_all(["fcos", "poto"], "shapes_tiny", [], 3, 20, tmp_path)
    assert measured[4:] == ["fcos", "fcos", "fcos", "poto"]


def test_a_scheme_that_fails_keeps_no_other_from_being_measured(measured, tmp_path, monkeypatch):
    measure = cost.measure_in_fresh_process

    def fail(scheme, *settings):
        if scheme == "poto":
            measured.append("failed")
            raise UserError("poto on shapes_tiny: measuring failed (Boom)")
        return measure(scheme, *settings)

    monkeypatch.setattr(cost, "measure_in_fresh_process", fail)
    with pytest.raises(UserError, match="poto on shapes_tiny: measuring failed .Boom."):
        measure_all(["fcos", "poto", "atss"], "shapes_tiny", [], 2, 20, tmp_path)
    assert measured == ["fcos", "failed", "atss", "fcos", "atss"]


def test_other_settings_are_an_error(measured, tmp_path):
    measure_all(["fcos"], "shapes_tiny", [], 1, 20, tmp_path)
    with pytest.raises(
        UserError, match="fcos_r18_fpn_shapes_tiny_cost.json: measured with other settings .* delete it"
    ):
        measure_all(["fcos"], "shapes_tiny", [], 2, 10, tmp_path)


def test_damaged_record(measured, results):
    path = results.add_cost("fcos", [1.0], [0.0])
    content = json.loads(path.read_text())
    for damage in ({"data": "coco"}, {"rounds": []}, {"rounds": [{"step": 1.0}]}):
        path.write_text(json.dumps(content | damage))
        with pytest.raises(UserError, match=f"{path}: not a CostRecord"):
            measure_all(["fcos"], "shapes_tiny", [], 1, 20, results.folder)
    assert not measured


def test_iterations_in_seconds(results):
    results.add_cost("poto", [100.0, 500.0, 125.0], [1.0, 1.0, 1.0])
    assert iterations_in(120, "poto", "shapes_tiny", results.folder) == 960
    with pytest.raises(UserError, match="fcos_r18_fpn_shapes_tiny_cost.json: no such file"):
        iterations_in(120, "fcos", "shapes_tiny", results.folder)
