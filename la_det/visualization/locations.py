"""The locations of one image that are positive, soft, of smaller background weight, or in no loss."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.modeling.criteria import Decision
from la_det.structures import Priors, Targets


class Kind(IntEnum):
    """What a location is for a ground truth."""

    POSITIVE = 0
    SOFT = 1  # positive with a target below 1
    NEGATIVE = 2  # background with another weight than 1
    DROPPED = 3  # in no loss


@dataclass(frozen=True)
class Locations:
    """E entries (location, ground truth) of one image and criterion; every field is an array of E rows.

    A location that is not listed is background with weight 1.

    Attributes:
        kind: see `Kind`.
        gt: number of the ground truth in the image, -1 for none.
        level: level of the location, 0 for the finest.
        point: (x, y) in pixels of the network input.
        weight: weight of a positive, background weight of a NEGATIVE, 0 for DROPPED.
        target: classification target, 0 unless positive.
        strength: how much the location differs from plain background, 0..1.
            POSITIVE: its weight divided by the largest weight of its ground truth.
            SOFT: its target.
            NEGATIVE: 1 minus its weight.
            DROPPED: 1.
        probability: predicted probability of the ground truth's class; NaN without ground truth.
        iou: IoU of the predicted box and the ground truth; NaN without ground truth.
        box: predicted box, XYXY pixels.
        anchor: anchor, XYXY pixels; NaN for branches without anchors.
    """

    kind: np.ndarray
    gt: np.ndarray
    level: np.ndarray
    point: np.ndarray
    weight: np.ndarray
    target: np.ndarray
    strength: np.ndarray
    probability: np.ndarray
    iou: np.ndarray
    box: np.ndarray
    anchor: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: np.ndarray) -> Locations:
        """The entries at an index or mask."""
        return Locations(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def positive(self) -> np.ndarray:
        """Mask of the positives, soft ones included."""
        return self.kind <= Kind.SOFT


def locations(decision: Decision, numbers: Tensor) -> Locations:
    """The locations of a batch of one image.

    Dropped priors and background weights belong to no ground truth by themselves. They are listed for each ground truth
    whose box contains their point (and, for a weight, which has its class), or once without a ground truth.
    Locations that are no queries are dropped, too; those outside all ground truths are not listed.

    Args:
        decision: decision of one criterion.
        numbers: [G] number in the image of each ground truth that the criterion saw.
    """
    assignment, targets, priors = decision.assignment, decision.targets, decision.predictions.priors
    pairs = assignment.pairs
    ones = torch.ones(len(pairs), device=pairs.gt.device)
    weight = ones if assignment.weight is None else assignment.weight
    target = ones if assignment.target is None else assignment.target
    kind = torch.where(target < 1, int(Kind.SOFT), int(Kind.POSITIVE))
    largest = weight.new_zeros(len(targets)).scatter_reduce_(0, pairs.gt, weight, "amax")
    strength = torch.where(target < 1, target, weight / largest[pairs.gt].clamp(min=1e-12))
    parts = [(pairs.prior, pairs.gt, kind, weight, target, strength)]
    if assignment.negatives is not None:
        negatives = assignment.negatives
        entry, gt = _owners(priors, targets, negatives.prior, negatives.cls)
        weight = negatives.weight[entry]
        parts.append(_background(Kind.NEGATIVE, negatives.prior[entry], gt, weight, 1 - weight))
    if assignment.dropped is not None:
        prior = assignment.dropped[1]
        entry, gt = _owners(priors, targets, prior)
        weight = torch.zeros(len(entry), device=weight.device)
        parts.append(_background(Kind.DROPPED, prior[entry], gt, weight, 1 - weight))
    if assignment.queries is not None:
        prior = (~assignment.queries.mask[0]).nonzero().squeeze(1)
        entry, gt = _owners(priors, targets, prior)
        entry, gt = entry[gt >= 0], gt[gt >= 0]  # most locations are no queries
        weight = torch.zeros(len(entry), device=weight.device)
        parts.append(_background(Kind.DROPPED, prior[entry], gt, weight, 1 - weight))
    return _read(decision, numbers, *(torch.cat(column) for column in zip(*parts, strict=True)))


def _background(kind: Kind, prior: Tensor, gt: Tensor, weight: Tensor, strength: Tensor) -> tuple[Tensor, ...]:
    return prior, gt, torch.full_like(gt, int(kind)), weight, torch.zeros_like(weight), strength


def _owners(priors: Priors, targets: Targets, prior: Tensor, cls: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(entry, gt) for all ground truths that contain the points of Q priors, and (entry, -1) if there is none."""
    points, boxes = priors.points[prior].unsqueeze(1), targets.boxes
    inside = ((points > boxes[:, :2]) & (points < boxes[:, 2:])).all(-1)  # [Q, G]
    if cls is not None:
        inside &= cls.unsqueeze(1) == targets.classes
    entry, gt = inside.nonzero(as_tuple=True)
    alone = (~inside.any(1)).nonzero().squeeze(1)
    return torch.cat([entry, alone]), torch.cat([gt, torch.full_like(alone, -1)])


def _read(
    decision: Decision,
    numbers: Tensor,
    prior: Tensor,
    gt: Tensor,
    kind: Tensor,
    weight: Tensor,
    target: Tensor,
    strength: Tensor,
) -> Locations:
    """The entries with the network's predictions at their priors."""
    predictions, targets, priors = decision.predictions, decision.targets, decision.predictions.priors
    box = predictions.boxes_at(torch.zeros_like(prior), prior)
    number, probability, iou = torch.full_like(gt, -1), *box.new_full((2, len(gt)), torch.nan)
    owned = (gt >= 0).nonzero().squeeze(1)
    image, at, of = torch.zeros_like(owned), prior[owned], gt[owned]
    number[owned] = numbers[of]
    probability[owned] = decision.score.at(predictions, image, at, targets.classes[of])
    iou[owned] = aligned_iou(box[owned], targets.boxes[of], eps=1e-6)
    anchor = torch.full_like(box, torch.nan) if priors.boxes is None else priors.boxes[prior]
    strength = strength.nan_to_num(0).clamp(0, 1)  # NaN of a diverged network cannot be drawn
    place = (kind, number, priors.levels[prior], priors.points[prior])
    columns = (*place, weight, target, strength, probability, iou, box, anchor)
    return Locations(*(column.cpu().numpy() for column in columns))
