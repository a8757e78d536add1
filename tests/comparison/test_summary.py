import json

import pytest

from la_det.comparison.summary import Figure, read_rows
from la_det.errors import UserError


def row(results, scheme="poto", data="shapes_tiny"):
    return next(row for row in read_rows(results.folder)[data] if row.scheme == scheme)


def test_mean_and_sample_deviation_over_seeds(results):
    for seed, ap in enumerate((20.0, 22.0, 27.0)):
        results.add_run("poto", [ap - 15, ap - 10, ap], seed=seed, **{"nms_gap/duplicates": 0.5})
    figures = row(results).figures()
    assert figures["AP"] == Figure(23.0, pytest.approx(13**0.5), 3)
    assert figures["AP at 1/3"].mean == 8.0 and figures["AP at 2/3"].mean == 13.0
    assert figures["duplicates"] == Figure(0.5, 0.0, 3)
    assert "AR" not in figures and "s/iter" not in figures
    assert row(results).ap_over_iterations() == [(10, 8.0), (20, 13.0), (30, 23.0)]


def test_crowds_have_their_own_metrics(results):
    results.add_run("lla", [50.0], data="shapes_crowd", **{"crowdhuman/mMR": 60.0, "crowdhuman/JI": 55.0})
    assert row(results, "lla", "shapes_crowd").figures() == {"AP": (50, 0, 1), "mMR": (60, 0, 1), "JI": (55, 0, 1)}


def test_what_a_run_lacks_is_left_out(results):
    results.add_run("poto", [1.0, 2.0])
    results.add_run("poto", [None, None], seed=1)
    assert row(results).figures() == {}
    assert row(results).ap_over_iterations() == []


def test_costs_are_medians_over_rounds(results):
    results.add_cost("poto", [100.0, 900.0, 120.0], [6.0, 50.0, 2.0])
    figures = row(results).figures()
    assert figures == {
        "s/iter": (0.12, 0, 1),
        "matching %": (pytest.approx(5.0), 0, 1),
        "peak MiB": (101.0, 0, 1),
        "M params": (2.5, 0, 1),
    }
    results.add_cost("detectron2_retinanet", [100.0], [0.0])
    assert "matching %" not in row(results, "detectron2_retinanet").figures()


def test_rows_are_in_the_order_of_the_projects(results):
    for scheme in ("lla", "date_f", "atss", "poto", "fcos", "dw_worefine"):
        results.add_run(scheme, [1.0])
    results.add_cost("detectron2_fcos", [1.0], [0.0])
    found = [row.scheme for row in read_rows(results.folder)["shapes_tiny"]]
    assert found == ["fcos", "poto", "atss", "dw_worefine", "date_f", "lla", "detectron2_fcos"]


def test_nothing_to_read(results):
    with pytest.raises(UserError, match="results: no results; make some"):
        read_rows(results.folder)


def test_mixed_budgets_are_an_error(results):
    results.add_run("poto", [1.0])
    results.add_run("fcos", [1.0], max_iter=60)
    with pytest.raises(UserError, match="runs on shapes_tiny differ in budget .*30.*60"):
        read_rows(results.folder)


def test_mixed_devices_are_an_error(results):
    results.add_cost("poto", [1.0], [0.0])
    path = results.add_cost("fcos", [1.0], [0.0])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "H100"}))
    with pytest.raises(UserError, match="costs on shapes_tiny differ in device .H100, cpu"):
        read_rows(results.folder)
