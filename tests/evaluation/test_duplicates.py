"""The counted duplicates against known answers and against a loop over detections."""

import math

import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from la_det.evaluation.duplicates import DuplicatesEvaluator, Objects, find_duplicates

SIZE = 200


def objects(boxes, classes=None, crowd=(), name="a.jpg"):
    """`Objects` of an image from XYXY boxes; those at `crowd` are ignored regions."""
    classes = classes or [0] * len(boxes)
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c, "iscrowd": int(i in crowd)}
        for i, (box, c) in enumerate(zip(boxes, classes, strict=True))
    ]
    record = {"image_id": name, "height": SIZE, "width": SIZE, "annotations": annotations}
    return Objects.from_record(record)


def detections(rows):
    """From rows (box XYXY, score, class)."""
    found = Instances((SIZE, SIZE))
    found.pred_boxes = Boxes(torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.tensor([row[1] for row in rows], dtype=torch.float32)
    found.pred_classes = torch.tensor([row[2] for row in rows], dtype=torch.int64)
    return found


def duplicates(truth, rows):
    return find_duplicates([truth], [detections(rows)]).tolist()


BOX = [10, 10, 50, 50]
NEAR = [10, 10, 50, 40]  # IoU 0.75 with BOX
HALF = [10, 10, 50, 30]  # IoU 0.5


class TestOneObject:
    def test_second_detection_is_a_duplicate(self):
        assert duplicates(objects([BOX]), [(BOX, 0.9, 0), (NEAR, 0.8, 0)]) == [0]

    def test_the_higher_score_keeps_it_whatever_the_iou(self):
        assert duplicates(objects([BOX]), [(BOX, 0.8, 0), (NEAR, 0.9, 0), (NEAR, 0.7, 0)]) == [0, 0]

    @pytest.mark.parametrize("row", [(NEAR, 0.29, 0), (NEAR, 0.8, 1), (HALF, 0.8, 0), ([100, 100, 140, 140], 0.8, 0)])
    def test_none_below_the_score_of_another_class_or_elsewhere(self, row):
        assert duplicates(objects([BOX], [0]), [(BOX, 0.9, 0), row]) == []

    def test_score_of_exactly_the_threshold_counts(self):
        assert duplicates(objects([BOX]), [(BOX, 0.9, 0), (NEAR, 0.3, 0)]) == [0]

    def test_ignored_regions_are_no_objects(self):
        assert duplicates(objects([BOX], crowd=[0]), [(BOX, 0.9, 0), (NEAR, 0.8, 0)]) == []


class TestCrowd:
    shifted = [20, 10, 60, 50]  # IoU 0.6 with BOX

    def test_a_detection_takes_a_free_object_that_overlaps_less(self):
        assert duplicates(objects([BOX, self.shifted]), [(BOX, 0.9, 0), (BOX, 0.8, 0)]) == []

    def test_when_all_are_taken_the_duplicate_is_of_the_one_it_overlaps_most(self):
        rows = [(BOX, 0.9, 0), (BOX, 0.8, 0), (self.shifted, 0.7, 0), (NEAR, 0.6, 0)]
        assert duplicates(objects([BOX, self.shifted]), rows) == [1, 0]

    def test_groups(self):
        large = [0, 0, 150, 150]
        truth = objects([BOX, self.shifted, BOX, [180, 180, 300, 300], large], [0, 0, 1, 0, 2])
        # Medium and crowded, twice; medium and alone in its class; small, as clipped to the image; large.
        assert truth.group.tolist() == [3, 3, 2, 0, 4]
        assert truth.boxes[3].tolist() == [180, 180, SIZE, SIZE]


def test_evaluator_counts_per_image_and_group():
    truth = {"a": objects([BOX, TestCrowd.shifted]), "b": objects([[0, 0, 20, 20]]), "c": objects([])}
    evaluator = DuplicatesEvaluator(truth)
    crowd = [(BOX, 0.9, 0), (TestCrowd.shifted, 0.8, 0), (BOX, 0.7, 0)]
    small = [([0, 0, 20, 20], s, 0) for s in (0.5, 0.6, 0.7)]
    for _ in range(2):  # the second round is as the first
        evaluator.reset()
        evaluator.process(
            [{"image_id": "a"}, {"image_id": "b"}], [{"instances": detections(x)} for x in (crowd, small)]
        )
        evaluator.process([{"image_id": "c"}], [{"instances": detections(small)}])
        assert evaluator.evaluate()["duplicates"] == pytest.approx(
            {"all": 1, "small": 2 / 3, "medium": 1 / 3, "large": 0, "apart": 2 / 3, "crowded": 1 / 3}
        )


def test_without_images_there_is_no_number():
    assert all(value != value for value in DuplicatesEvaluator({}).evaluate()["duplicates"].values())


def loop(truth, found):
    """Duplicates of one image, detection by detection."""
    taken, result = set(), []
    iou = box_iou(found.pred_boxes.tensor, truth.boxes)
    for d in found.scores.argsort(descending=True, stable=True).tolist():
        if found.scores[d] < 0.3:
            continue
        same = [g for g in range(len(truth.boxes)) if truth.classes[g] == found.pred_classes[d] and iou[d, g] > 0.5]
        free = [g for g in same if g not in taken]
        if free:
            taken.add(max(free, key=lambda g: iou[d, g]))
        elif same:
            result.append(max(same, key=lambda g: iou[d, g]))
    return result


@st.composite
def scenes(draw):
    """Up to three images, each of a few boxes close to each other and detections close to them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scene = []
    for _ in range(draw(st.integers(1, 3))):
        num_gts, num_dets = draw(st.integers(0, 6)), draw(st.integers(0, 20))
        boxes = torch.cat([torch.rand(num_gts, 2, generator=generator) * 30, torch.full((num_gts, 2), 100.0)], 1)
        classes = torch.randint(2, (num_gts,), generator=generator)
        found = torch.cat([torch.rand(num_dets, 2, generator=generator) * 40, torch.full((num_dets, 2), 110.0)], 1)
        scores = torch.rand(num_dets, generator=generator)
        guesses = torch.randint(2, (num_dets,), generator=generator)
        rows = list(zip(found.tolist(), scores.tolist(), guesses.tolist(), strict=True))
        scene.append((objects(boxes.tolist(), classes.tolist()), detections(rows)))
    return scene


@given(scenes())
def test_same_as_a_loop(scene):
    found = find_duplicates([truth for truth, _ in scene], [dets for _, dets in scene]).tolist()
    expected, start = [], 0
    for truth, dets in scene:
        expected += [start + g for g in loop(truth, dets)]
        start += len(truth.boxes)
    assert sorted(found) == sorted(expected)


def test_without_objects_nothing_is_known():
    evaluator = DuplicatesEvaluator({"a": objects([])})
    evaluator.process([{"image_id": "a"}], [{"instances": detections([(BOX, 0.9, 0)])}])
    assert all(math.isnan(value) for value in evaluator.evaluate()["duplicates"].values())
