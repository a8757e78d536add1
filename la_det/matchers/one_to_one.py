"""One-to-one rules that POTO was compared with (Wang et al., CVPR 2021, table 1): anchor, center, foreground loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from la_det.geometry import aligned_giou, aligned_iou
from la_det.losses.focal import focal_entries
from la_det.steps.candidates import cell_of, center_region, every_pair, ltrb_of_pairs, nearest_priors, window_priors
from la_det.steps.select import SIZE_RANGES, best_of_each, best_per_prior, in_size_range, match
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets, constant


class OneToOneAnchor:
    """Each ground truth gets the anchor of largest IoU over all levels; ties go to the first anchor.

    If several ground truths choose one anchor, the one of largest IoU keeps it, and the others get none. The branch
    needs one anchor per cell.
    """

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        prior, exists = best_anchor_candidates(priors, targets)
        pairs = every_pair(prior, targets)
        iou = aligned_iou(priors.boxes[prior], targets.boxes.unsqueeze(1)).flatten()
        return Assignment(best_of_each(pairs, iou, priors, targets, among=exists.flatten()))


def best_anchor_candidates(priors: Priors, targets: Targets) -> tuple[Tensor, Tensor]:
    """3 x 3 anchors of each level that contain the first anchor of largest IoU, in the form of `window_priors`.

    Along an axis, the overlap of an anchor and a box is largest, and constant, while the distance of their centres is
    at most half the difference of their sides. Beyond, it falls. So the first best cell is the first cell of this
    interval; if the interval has no cell, it is one of the two neighbours. The third cell allows for rounding.
    """
    starts, columns_rows, strides = priors.grid_table
    anchors = priors.boxes[starts]
    difference = (anchors[:, 2:] - anchors[:, :2]) - (targets.boxes[:, 2:] - targets.boxes[:, :2]).unsqueeze(1)
    first = cell_of(targets.centers.unsqueeze(1) - difference.abs() / 2, strides, priors).ceil()
    first = first.clamp(min=0).minimum(columns_rows - 1)
    cells = first.unsqueeze(-1) + constant((-1, 0, 1), first.device, torch.int64)
    return window_priors(cells, (cells >= 0) & (cells < columns_rows.unsqueeze(-1)), priors)


class OneToOneCenter:
    """On each level whose size range fits, a ground truth gets the location nearest to its centre.

    A ground truth near a border of the ranges may get none or two. If several ground truths choose one location, the
    smallest keeps it. The location may lie outside the box. The branch needs one prior per cell.

    Args:
        size_ranges: per level the smallest and largest allowed max(l, t, r, b) in pixels, both inclusive.
    """

    def __init__(self, *, size_ranges: Sequence[tuple[float, float]] = SIZE_RANGES):
        self.size_ranges = size_ranges

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        pairs = every_pair(nearest_priors(priors, targets, 1), targets)
        fits = in_size_range(ltrb_of_pairs(pairs, priors, targets), pairs, priors, self.size_ranges)
        best = best_per_prior(pairs, -targets.areas[pairs.gt], priors, targets.num_images, among=fits)
        return Assignment(pairs[best])  # host synchronisation: the number of positives


class ForegroundLoss:
    """Bipartite matching on the training loss itself, instead of POTO's quality.

    The cost of a location is its focal loss over all classes as a positive of the ground truth's class, plus
    `box_weight` (1 - GIoU).

    Args:
        alpha: weight of positives in the focal loss.
        box_weight: weight of the box loss.
        center_radius: half side of the candidate region in strides; 0 takes the whole box.
        drop_unmatched: what a ground truth without a free candidate gets.
            False: an arbitrary location, as in the official implementation.
            True: no location.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        box_weight: float = 2.0,
        center_radius: float = 1.5,
        drop_unmatched: bool = False,
    ):
        self.alpha = alpha
        self.box_weight = box_weight
        self.center_radius = center_radius
        self.drop_unmatched = drop_unmatched

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        pairs, inside = center_region(predictions.priors, targets, self.center_radius)
        boxes = predictions.boxes_at(pairs.image, pairs.prior)
        box_cost = self.box_weight * (1 - aligned_giou(boxes, targets.boxes[pairs.gt]))
        cost = foreground_focal_cost(predictions, targets, pairs, score, self.alpha) + box_cost
        num_priors, drop = len(predictions.priors), self.drop_unmatched
        return Assignment(match(pairs, -cost, targets, num_priors, missing=-1e8, drop_missing=drop, among=inside))


def foreground_focal_cost(
    predictions: DensePredictions, targets: Targets, pairs: Pairs, score: Score, alpha: float
) -> Tensor:
    """Focal loss [P] over all classes of each pair's location, if the ground truth's class were its target.

    Only this class depends on the pair: the other classes are summed once per location, not once per pair.
    """
    num_priors = len(predictions.priors)
    # Host synchronisation: the number of different locations.
    location, of_pair = torch.unique(pairs.image * num_priors + pairs.prior, return_inverse=True)
    image, prior = location.div(num_priors, rounding_mode="floor"), location % num_priors
    c = predictions.at("logits", image, prior)  # [locations, K]
    f = None if score.gate is None else predictions.at(score.gate, image, prior)
    positive, negative = focal_entries(score, c, f, alpha)
    cls = targets.classes[pairs.gt]
    return negative.sum(-1)[of_pair] + positive[of_pair, cls] - negative[of_pair, cls]
