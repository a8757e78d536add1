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
    targets,
    without_empty_columns,
)

DENSE = Cost(40.0, 100.0, 90.0)


def measurement(scheme="poto", num_gts=100, dense=DENSE, device="cpu"):
    return Measurement(scheme, num_gts, Cost(2.0, 20.0, 30.0), dense, 208, 1, device)


def test_row():
    row = ["poto", "100", "2.0", "20.0x (met, 10x)", "20.0", "5.0x (met, 3x)", "30", "3.0x (met, 2x)", "208", "1", ""]
    assert table_row(measurement()) == row
    assert len(row) == len(HEADER)


def test_targets():
    assert table_row(measurement(dense=Cost(4.0, 100.0, 90.0)))[3] == "2.0x (MISSED, 10x)"
    assert table_row(measurement("poto_3dmf_aux"))[3] == "20.0x (met, 3x)"
    assert table_row(measurement(num_gts=500))[3] == "20.0x"
    assert targets("poto", 500) == Cost(0, 0, 0)


@pytest.mark.parametrize("dense", [None, DENSE])
def test_read_back(dense):
    assert measurement_from(asdict(measurement(dense=dense))) == measurement(dense=dense)
    assert len(table_row(measurement(dense=dense))) == len(HEADER)


def test_a_gpu_has_no_dense_form_and_a_cpu_no_host_syncs():
    row = table_row(replace(measurement(device="cuda", dense=None), host_syncs=3))
    rows, header = without_empty_columns([row], HEADER)
    assert header == ["scheme", "G", "assign ms", "total ms", "peak MiB", "ops", "waits", "host syncs"]
    assert rows[0][-1] == "3"
    assert "host syncs" not in without_empty_columns([table_row(measurement())], HEADER)[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_host_syncs_are_counted():
    x = torch.ones(8, device="cuda")
    assert count_host_syncs(lambda: x + 1) == 0
    assert count_host_syncs(lambda: (x.sum().item(), x.nonzero())) == 2
