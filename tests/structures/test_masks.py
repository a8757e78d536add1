"""Masks of ground truths."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from la_det.structures import Masks, Targets


def random_masks(counts, sizes, seed=0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return Masks(tuple(torch.rand(g, *size, generator=generator) > 0.6 for g, size in zip(counts, sizes, strict=True)))


def test_areas_and_centroids():
    masks = random_masks([3, 0, 20], [(9, 12), (5, 5), (16, 7)])  # 20: more than one chunk
    every = [mask for of_image in masks.of_images for mask in of_image]
    assert len(masks) == 23
    assert masks.areas.tolist() == [mask.sum() for mask in every]
    for mask, (x, y) in zip(every, masks.centroids.tolist(), strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        assert (x, y) == pytest.approx((float(columns.float().mean()), float(rows.float().mean())))


def test_an_empty_mask_has_no_centroid():
    masks = Masks((torch.zeros(1, 4, 4, dtype=torch.bool),))
    assert masks.areas.tolist() == [0]
    assert masks.centroids.isnan().all()


def test_samples_are_those_of_the_padded_masks():
    masks = random_masks([2, 1], [(30, 21), (17, 32)])
    for start, step in ((2, 4), (4, 8)):
        sampled = masks.sample(start, step, (32 // step, 32 // step))
        padded = torch.zeros(3, 32, 32, dtype=torch.bool)
        padded[:2, :30, :21], padded[2:, :17] = masks.of_images
        assert torch.equal(sampled, padded[:, start::step, start::step])


def test_no_masks_at_all():
    masks = random_masks([0, 0], [(8, 8), (8, 8)])
    assert masks.centroids.shape == (0, 2)
    assert masks.sample(2, 4, (2, 2)).shape == (0, 2, 2)


def test_targets_keep_masks_with_their_ground_truths():
    instances = []
    for ignored in [[False, True, False], [], [True]]:
        g = len(ignored)
        fields = {"gt_boxes": Boxes(torch.rand(g, 4)), "gt_classes": torch.zeros(g, dtype=torch.int64)}
        fields |= {"gt_masks": BitMasks(torch.rand(g, 6, 8) > 0.5), "ignored": torch.tensor(ignored, dtype=torch.bool)}
        instances.append(Instances((6, 8), **fields))
    targets = Targets.from_instances(instances)
    kept = targets.without_ignored()
    assert [len(masks) for masks in kept.masks.of_images] == [2, 0, 0]
    assert torch.equal(kept.masks.of_images[0], targets.masks.of_images[0][[0, 2]])


def test_targets_without_bitmasks():
    instances = Instances((6, 8), gt_boxes=Boxes(torch.rand(1, 4)), gt_classes=torch.zeros(1, dtype=torch.int64))
    assert Targets.from_instances([instances]).masks is None
    instances.gt_masks = PolygonMasks([[np.array([0, 0, 4, 0, 4, 4])]])
    assert Targets.from_instances([instances]).masks is None
