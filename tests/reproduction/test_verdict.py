"""Published and measured figures compared."""

import pytest

from la_det import model_zoo
from la_det.conversion.repositories import MMDETECTION_TOOD, TOOD
from la_det.model_zoo.records import Record
from la_det.reproduction.verdict import DIFFERENT, NOISE, NOISY, SAME, UNKNOWN, expected, figures, judge

RECORDS = model_zoo.get_records()


def test_the_figures_of_a_repository():
    record = RECORDS["TOOD/tood_r101_fpn_2x_ms_coco"]
    assert expected(record) == expected(record, TOOD) == {"AP": 46.2}
    assert expected(record, MMDETECTION_TOOD) == {"AP": 46.1}
    assert expected(RECORDS["TOOD/tood_r50_fpn_2x_ms_coco"], TOOD) == {}


def test_figures_of_coco_s_server_are_left_out():
    assert expected(RECORDS["ATSS/atss_r50_fpn_1x_coco"]) == {"AP": 39.3}


def test_every_published_figure_can_be_measured():
    coco = {"bbox": dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR"), 1.0), "segm": {"AP": 2.0}}
    crowdhuman = {"crowdhuman": dict.fromkeys(("AP", "mMR", "JI", "Recall"), 3.0)}
    for name, record in RECORDS.items():
        measured = figures(crowdhuman if name.endswith("_crowdhuman") else coco)
        assert expected(record).keys() <= measured.keys(), name
        assert not expected(record) or expected(record).keys() & NOISE.keys(), name
    assert figures(coco)["mask AP"] == 2 and figures(crowdhuman)["AP"] == 3


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ({"AP": 39.2}, SAME),
        ({"AP": 39.3}, SAME),
        ({"AP": 39.1}, SAME),
        ({"AP": 39.31}, NOISY),
        ({"AP": 38.9}, NOISY),
        ({"AP": 38.89}, DIFFERENT),
        ({"AP": None}, DIFFERENT),
        ({}, DIFFERENT),
    ],
)
def test_bounds(measured, verdict):
    assert judge(Record("a"), {"AP": 39.2}, measured) == verdict


def test_the_worst_metric_decides():
    published = {"AP": 88.5, "mMR": 52.2, "Recall": 96.3}
    assert judge(Record("a"), published, {"AP": 88.5, "mMR": 52.2, "Recall": 90.0}) == SAME  # which is only shown
    assert judge(Record("a"), published, {"AP": 88.5, "mMR": 53.1}) == NOISY
    assert judge(Record("a"), published, {"AP": 88.1, "mMR": 52.2}) == DIFFERENT


def test_noise_that_authors_state():
    narrow = Record("a", noise={"AP": 0.01})
    assert judge(narrow, {"AP": 12.345}, {"AP": 12.352}) == SAME
    assert judge(narrow, {"AP": 12.345}, {"AP": 12.36}) == DIFFERENT
    assert judge(Record("a", noise={"AP": 0.2}), {"AP": 41.5}, {"AP": 41.25}) == DIFFERENT
    assert {record.source.rpartition("/")[2] for record in RECORDS.values() if record.noise} == {
        "DeFCN",
        "OneNet",
        "DDQ",
    }


def test_nothing_published():
    assert judge(Record("a"), {}, {"AP": 39.2}) == UNKNOWN
