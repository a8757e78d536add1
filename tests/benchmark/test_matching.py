"""The matching benchmark's table."""

from dataclasses import asdict, replace

import pytest
import torch

from la_det.benchmark.matching import (
    HEADER,
    Cost,
    Measurement,
    count_host_syncs,
    measurement_from,
    table_row,
    without_empty_columns,
)
from la_det.benchmark.official import COSTS, R1_MS, target

DENSE = Cost(40.0, 100.0, 90.0)


def measurement(scheme="poto", num_gts=100, dense=DENSE, device="cpu"):
    return Measurement(scheme, num_gts, Cost(2.0, 20.0, 30.0), dense, 2 * R1_MS, 10.0, device)


def test_ratios_are_scaled_by_the_reference_operation():
    row = dict(zip(HEADER[3:], table_row(measurement())[3:], strict=False))
    assert len(table_row(measurement())) == len(HEADER)
    official = COSTS["poto"][100]
    assert table_row(measurement())[3] == f"{official[0] * 2 / 2.0:.1f}x (met, 10x)"
    assert row["r1 ms"] == f"{2 * R1_MS:.1f}"
    # Memory needs no scale.
    assert table_row(measurement())[9] == f"{official[2] / 30:.1f}x (met, 2x)"


def test_targets_are_about_the_dense_form_where_no_official_cost_is_known():
    row = table_row(measurement("date_r"))
    assert row[3] == row[6] == row[9] == ""
    assert row[4] == "20.0x (met, 10x)"
    assert row[10] == "3.0x (met, 2x)"
    assert table_row(measurement("date_r", dense=Cost(4.0, 100.0, 90.0)))[4] == "2.0x (MISSED, 10x)"


@pytest.mark.parametrize("dense", [None, Cost(1.0, 2.0, 3.0)])
def test_read_back(dense):
    assert measurement_from(asdict(measurement(dense=dense))) == measurement(dense=dense)
    assert len(table_row(measurement(dense=dense))) == len(HEADER)


def test_a_gpu_is_not_compared_with_official_figures_of_a_cpu():
    row = table_row(replace(measurement(device="cuda", dense=None), host_syncs=3))
    assert row[3] == ""
    rows, header = without_empty_columns([row], HEADER)
    assert header == ["scheme", "G", "assign ms", "total ms", "peak MiB", "r1 ms", "r2 ms", "host syncs"]
    assert rows[0][-1] == "3"
    assert "host syncs" not in without_empty_columns([table_row(measurement())], HEADER)[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_host_syncs_are_counted():
    x = torch.ones(8, device="cuda")
    assert count_host_syncs(lambda: x + 1) == 0
    assert count_host_syncs(lambda: (x.sum().item(), x.nonzero())) == 2


def test_no_target_at_500():
    assert target("poto", 500).assignment is None
