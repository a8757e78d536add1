import logging
import math

import pytest
from detectron2.structures import BoxMode

from la_det.data.dataset_dicts import drop_degenerate_boxes
from la_det.errors import UserError


def image(name: str, *boxes: list, mode: BoxMode = BoxMode.XYWH_ABS, iscrowd: int = 0) -> dict:
    annotations = [{"bbox": box, "bbox_mode": mode, "category_id": 0, "iscrowd": iscrowd} for box in boxes]
    return {"file_name": name, "height": 40, "width": 60, "annotations": annotations}


def test_degenerate_boxes_are_dropped_with_one_counted_warning(caplog: pytest.LogCaptureFixture) -> None:
    good = [[10, 10, 1, 1], [-5, -5, 6, 6], [59, 39, 100, 100], [0.5, 0.5, 1e-3, 1e-3]]
    bad = [
        [10, 10, 0, 5],
        [10, 10, 5, -5],
        [math.nan, 0, 5, 5],
        [0, 0, math.inf, 5],
        [60, 0, 5, 5],
        [-5, 0, 5, 5],
        [0, 41, 5, 5],
    ]
    records = [image("a", *good), image("b"), image("c", good[0], *bad, good[1])]
    with caplog.at_level(logging.WARNING, logger="la_det"):
        kept = drop_degenerate_boxes(records)
    assert [[a["bbox"] for a in record["annotations"]] for record in kept] == [good, [], good[:2]]
    assert len(records[2]["annotations"]) == 9  # the catalog's list stays as it is
    (warning,) = caplog.records
    assert "Dropped 7 boxes" in warning.message and warning.message.endswith("[10.0, 10.0, 10.0, 15.0] of c")


def test_box_modes_may_differ(caplog: pytest.LogCaptureFixture) -> None:
    records = [image("a", [10, 10, 5, 5]), image("b", [10, 10, 5, 5], [1, 1, 5, 5], mode=BoxMode.XYXY_ABS)]
    kept = drop_degenerate_boxes(records)
    assert [len(record["annotations"]) for record in kept] == [1, 1]


def test_nothing_to_drop(caplog: pytest.LogCaptureFixture) -> None:
    for records in ([image("a")], [image("a", [1, 1, 5, 5]), image("b")]):
        assert drop_degenerate_boxes(records) == records
    assert not caplog.records


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "wide"], None])
def test_box_that_is_not_four_numbers_is_named(box: object) -> None:
    with pytest.raises(UserError, match="^b is annotated with .*not four numbers"):
        drop_degenerate_boxes([image("a", [1, 2, 3, 4]), image("b", [1, 2, 3, 4], box)])
