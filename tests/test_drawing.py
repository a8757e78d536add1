"""Pictures of detections and ground truths."""

import numpy as np
import pytest
from detectron2.data import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from torch import tensor, zeros

from la_det.drawing import COLOURS, Drawer


def found(boxes, classes, masks=None):
    instances = Instances((64, 96), pred_boxes=Boxes(tensor(boxes)), pred_classes=tensor(classes))
    instances.scores = tensor([0.9] * len(classes))
    if masks is not None:
        instances.pred_masks = masks
    return instances


def drawn(names, boxes, classes, **options):
    image = np.zeros((64, 96, 3), np.uint8)
    return Drawer(Metadata(thing_classes=names), **options).detections(image, found(boxes, classes))


def colour_of_the_lower_edge(picture, box):
    return tuple(picture[int(box[3]), int(box[0]) + 8].tolist())


def test_a_class_has_one_colour():
    boxes = [[4.0, 4.0, 40.0, 60.0], [50.0, 4.0, 90.0, 60.0]]
    same, other = drawn(["a", "b"], boxes, [1, 1]), drawn(["a", "b"], boxes, [1, 0])
    first, second = (tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:2])
    assert [colour_of_the_lower_edge(same, box) for box in boxes] == [second] * 2
    assert [colour_of_the_lower_edge(other, box) for box in boxes] == [second, first]


@pytest.mark.parametrize("name", ["größe", "Ελλάδα", "собака", "$a$", "$\\frac", "a_b^c", "狗", ""])
def test_names_of_any_script(name):
    assert drawn([name], [[4.0, 4.0, 40.0, 60.0]], [0]).max() > 0


def test_size_and_nothing_to_draw():
    picture = drawn(["a"], np.zeros((0, 4)), [], scale=2.0)
    assert picture.shape == (128, 192, 3) and picture.max() == 0


@pytest.mark.parametrize("box", [[-50.0, -9.0, 200.0, 90.0], [90.0, 60.0, 95.0, 63.0], [9.0, 9.0, 2.0, 3.0], [5.0] * 4])
def test_boxes_beyond_the_picture_and_tiny_ones(box):
    assert drawn(["a long name"], [box], [0]).max() > 0


def test_masks_are_filled():
    masks = zeros(1, 64, 96, dtype=bool)
    masks[:, 10:50, 10:30] = True
    image = np.zeros((64, 96, 3), np.uint8)
    picture = Drawer(Metadata()).detections(image, found([[10.0, 10.0, 30.0, 50.0]], [3], masks))
    assert picture[40, 20].max() > 0


def test_ignored_regions_say_so(monkeypatch):
    record = {"annotations": [{"bbox": [4, 4, 30, 50], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1}]}
    drawer, notes = Drawer(Metadata(thing_classes=["person"])), []
    draw = drawer._draw
    monkeypatch.setattr(drawer, "_draw", lambda *args: notes.append(args[3]) or draw(*args))
    assert drawer.ground_truths(np.zeros((64, 96, 3), np.uint8), record).max() > 0
    assert notes == [["person (ignored)"]]
