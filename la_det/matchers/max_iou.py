"""RetinaNet's rule: anchors go to the ground truth they overlap most (Lin et al., ICCV 2017, section 4)."""

import torch
from torch import Tensor

from la_det.geometry import aligned_iou, ltrb_distances
from la_det.steps.candidates import cell_of, grid_extents, overlapping_anchors, within_extents
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets, true_indices

BACKGROUND, DROPPED = -1, -2


class MaxIoU:
    """An anchor whose largest IoU is at least `foreground` is positive, below `background` background, else dropped.

    An anchor that has some ground truth's largest IoU is positive, too, unless this IoU is 0.

    Args:
        foreground: smallest IoU of a positive.
        background: anchors whose largest IoU is below this one are background.
        reassign_best: where an anchor goes that has some ground truth's largest IoU.
            True: to this ground truth, the last one of several.
            False: to the ground truth that the anchor overlaps most.
        margin: the centre of a positive lies more than this many pixels inside each side of its ground truth; other
            positives are dropped. None: the centre may lie anywhere.
        pad_to: an image is padded to a multiple of this; anchors whose cell begins outside of it are dropped. None: no
            anchor is dropped for its place.
    """

    def __init__(
        self,
        *,
        foreground: float = 0.5,
        background: float = 0.4,
        reassign_best: bool = True,
        margin: float | None = None,
        pad_to: int | None = None,
    ):
        self.foreground = foreground
        self.background = background
        self.reassign_best = reassign_best
        self.margin = margin
        self.pad_to = pad_to

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        extents = grid_extents(priors, targets, self.pad_to)
        pairs = overlapping_anchors(priors, targets, self._lowest_iou(priors, targets, extents), extents)
        iou = aligned_iou(priors.boxes.index_select(0, pairs.prior), targets.boxes.index_select(0, pairs.gt))

        # For each (image, prior) [N R]: the largest IoU, and the first ground truth that has it; G without any overlap.
        flat, num_locations = pairs.location(len(priors)), targets.num_images * len(priors)
        own_iou = iou.new_zeros(num_locations).scatter_reduce_(0, flat, iou, "amax")
        first = pairs.gt.masked_fill(iou < own_iou[flat], len(targets))
        own = pairs.gt.new_full((num_locations,), len(targets)).scatter_reduce_(0, flat, first, "amin")

        # Ground truth of each (image, prior), or BACKGROUND or DROPPED.
        matched = torch.where(own_iou >= self.background, DROPPED, BACKGROUND)
        matched = torch.where(own_iou >= self.foreground, own, matched)
        largest = iou.new_zeros(len(targets)).scatter_reduce_(0, pairs.gt, iou, "amax")
        best = (iou == largest[pairs.gt]) & (iou > 0)
        last = pairs.gt.masked_fill(~best, BACKGROUND)
        last = torch.full_like(matched, BACKGROUND).scatter_reduce_(0, flat, last, "amax")
        matched = torch.where(last >= 0, last if self.reassign_best else own, matched)
        if self.pad_to is not None:
            matched.masked_fill_(~within_extents(priors, extents).flatten(), DROPPED)
        return self._assignment(matched, priors, targets)

    def _lowest_iou(self, priors: Priors, targets: Targets, extents: Tensor) -> Tensor:
        """[G] IoU from which on pairs can matter: `background`, or a smaller one if no near anchor reaches it."""
        near = _near(priors, targets)
        iou = aligned_iou(priors.boxes[near], targets.boxes.unsqueeze(1))
        if self.pad_to is not None:
            iou = iou * within_extents(priors, extents)[targets.image.unsqueeze(1), near]
        lowest = iou.amax(1).clamp(max=self.background)
        if self.reassign_best:
            return lowest
        # An anchor's own ground truth may be any other of the image.
        per_image = lowest.new_full((targets.num_images,), torch.inf)
        return per_image.scatter_reduce_(0, targets.image, lowest, "amin")[targets.image]

    def _assignment(self, matched: Tensor, priors: Priors, targets: Targets) -> Assignment:
        # Host synchronisation: the numbers of positive and of dropped priors.
        positive, dropped = true_indices(matched >= 0, matched == DROPPED)
        pairs = Pairs(*_image_and_prior(positive, priors), matched[positive])
        if self.margin is not None:
            ltrb = ltrb_distances(priors.points[pairs.prior], priors.inset(targets.boxes)[pairs.gt])
            inside = ltrb.amin(-1) > self.margin
            dropped = torch.cat([dropped, positive[~inside]])  # host synchronisation
            pairs = pairs[inside]  # host synchronisation
        return Assignment(pairs, dropped=_image_and_prior(dropped, priors))


def _near(priors: Priors, targets: Targets) -> Tensor:
    """[G, L A] of each level the priors of a cell whose point is nearest to a ground truth's centre."""
    starts, columns_rows, strides = priors.grid_table
    cell = cell_of(targets.centers.unsqueeze(1), strides, priors).round_().to(torch.int64)
    column, row = cell.clamp_(min=0).minimum(columns_rows - 1).unbind(-1)
    prior = starts + (row * columns_rows[:, 0] + column) * priors.per_cell
    return (prior.unsqueeze(-1) + torch.arange(priors.per_cell, device=prior.device)).flatten(1)


def _image_and_prior(location: Tensor, priors: Priors) -> tuple[Tensor, Tensor]:
    return location.div(len(priors), rounding_mode="floor"), location % len(priors)
