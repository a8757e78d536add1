"""DETR's bipartite matching (ECCV 2020, section 3.1) on dense predictions.

DATE's CrowdHuman recipes and OneNet use it. Every prior is a candidate of every ground truth, wherever it is. But an
optimum needs only a ground truth's cheapest priors. The matching shows whether a ground truth needs more than it has
(`match_listed`); then it gets more.
"""

import torch

from la_det.steps.score import DETRCost
from la_det.steps.select import match_listed
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets

FEW = 80  # cheapest priors of each ground truth that are looked for at first


class Hungarian:
    """Each ground truth gets one prior, so that the sum of their costs is least.

    Args:
        cost: of a prior for a ground truth.
    """

    def __init__(self, *, cost: DETRCost | None = None):
        self.cost = cost or DETRCost()

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        costs = self.cost(predictions, targets, score)
        longest = max(1, *targets.counts)
        number = min(FEW, longest)
        gts = torch.arange(len(targets), device=targets.image.device)
        gt, prior, cost, rest = costs.cheapest(gts, number)
        while True:
            gt, order = gt.sort(stable=True)
            prior, cost = prior[order], cost[order]
            pairs = Pairs(targets.image[gt], prior, gt)
            if number == longest:  # no optimum needs more than the g cheapest priors of a ground truth
                rest = rest.index_fill(0, gts, torch.inf)
            matched, unproved = match_listed(pairs, -cost, -rest, targets)
            gts = unproved.nonzero().squeeze(-1)  # host synchronisation: how many ground truths need more priors
            if len(gts) == 0:
                return Assignment(matched)
            number = longest
            kept = (~unproved[gt]).nonzero().squeeze(1)  # host synchronisation
            *more, _ = costs.cheapest(gts, number)
            gt, prior, cost = (torch.cat([x[kept], y]) for x, y in zip((gt, prior, cost), more, strict=True))
