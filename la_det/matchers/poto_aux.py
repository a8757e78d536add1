"""The one-to-many rule of the auxiliary loss that is trained beside POTO (Wang et al., CVPR 2021, section 3.4)."""

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.steps.candidates import overlapping_pairs
from la_det.steps.score import matching_quality
from la_det.steps.select import above_threshold, mean_plus_std, rank_in_group
from la_det.structures import Assignment, DensePredictions, Score, Targets, constant

# Upper bound of the pairs in memory: ground truths are looked at in portions, in case all boxes overlap.
_MAX_PAIRS = 3 << 20


class POTOAux:
    """ATSS's rule on POTO's quality q = p^(1 - alpha) IoU^alpha instead of the anchor's IoU, for classification only.

    The candidates of a ground truth are the `topk` locations of each level with the largest q, wherever they are.
    Positives are the candidates inside the box with q >= mean + standard deviation over the candidates. A location that
    is positive for several ground truths belongs to the one of largest q.

    Ties go to the location of lowest index. This matters for a ground truth that no predicted box overlaps, as at the
    start of a training: all its q and the threshold are 0, and its candidates are the first locations of each level.
    (The official implementation leaves the choice to `torch.topk`.)

    Args:
        alpha: weight of localisation against classification.
        topk: candidates per level; a level with fewer locations gives all it has.
    """

    def __init__(self, *, alpha: float = 0.8, topk: int = 9):
        self.alpha = alpha
        self.topk = topk

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        boxes = predictions.boxes()
        step = max(_MAX_PAIRS // len(predictions.priors), 1)
        portions = [slice(start, start + step) for start in range(0, max(len(targets), 1), step)]
        best = [self._best_of_levels(predictions, boxes, targets, portion, score) for portion in portions]
        candidates, q = (torch.cat(x) for x in zip(*best, strict=True))  # [G, C]
        return Assignment(above_threshold(candidates, q, mean_plus_std(q), predictions.priors, targets, margin=0.0)[0])

    def _best_of_levels(
        self, predictions: DensePredictions, boxes: Tensor, targets: Targets, portion: slice, score: Score
    ) -> tuple[Tensor, Tensor]:
        """The candidates [g, C] of some ground truths, level by level, and their q [g, C]."""
        priors = predictions.priors
        pairs = overlapping_pairs(boxes, targets, portion)
        iou = aligned_iou(
            boxes.flatten(0, 1).index_select(0, pairs.image * len(priors) + pairs.prior),
            targets.boxes.index_select(0, pairs.gt),
        )
        p = score.at(predictions, pairs.image, pairs.prior, targets.classes.index_select(0, pairs.gt))
        q = matching_quality(p, iou, self.alpha)
        # A q that is not listed is 0. The first locations of a level stand for such q: if any q is above 0, the
        # threshold is, too.
        counts = [min(self.topk, h * w) for h, w in priors.grid_sizes]
        starts = zip(priors.level_starts[:-1], counts, strict=True)
        first = torch.cat([torch.arange(start, start + count, device=q.device) for start, count in starts])
        num_gts, num_levels, columns = len(targets.boxes[portion]), len(counts), len(first)
        gt, level = pairs.gt - portion.start, priors.levels.index_select(0, pairs.prior)
        order, rank = rank_in_group(gt * num_levels + level, q, num_gts * num_levels)
        rank = torch.empty_like(rank).index_copy_(0, order, rank)

        start = constant(tuple(accumulate(counts, initial=0))[:-1], q.device, torch.int64)
        wanted = (rank < constant(tuple(counts), q.device, torch.int64)[level]) & ~(q <= 0)  # NaN must not hide
        cell = (gt * (columns + 1) + start[level] + rank).where(wanted, columns)  # one column for all others
        candidates = F.pad(first, (0, 1)).repeat(num_gts).index_copy_(0, cell, pairs.prior).view(num_gts, columns + 1)
        values = q.new_zeros(num_gts * (columns + 1)).index_copy_(0, cell, q).view(num_gts, columns + 1)
        return candidates[:, :columns], values[:, :columns]
