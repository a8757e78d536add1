"""OneNet's minimum-cost assignment (Sun et al., ICML 2021, arXiv 2012.05780), the rule of its first release.

The later one, with which its FCOS and RetinaNet models were published, is `Hungarian` with OneNet's cost.
"""

import torch

from la_det.steps.score import DETRCost
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets


class OneNet:
    """Each ground truth takes the prior that costs it least, of equal ones the first, whatever the others take.

    So several may take one prior. All of them pull its box; its class is that of the last one.

    Args:
        cost: of a prior for a ground truth.
    """

    def __init__(self, *, cost: DETRCost | None = None):
        self.cost = cost or DETRCost(corners=True, eps=1e-8)

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        num_gts, num_priors = len(targets), len(predictions.priors)
        gts = torch.arange(num_gts, device=targets.image.device)
        gt, prior, cost, _ = self.cost(predictions, targets, score).cheapest(gts, 1)
        least = cost.new_full((num_gts,), torch.inf).scatter_reduce_(0, gt, cost, "amin")
        prior = prior.masked_fill(cost > least[gt], num_priors)
        prior = gts.new_full((num_gts,), num_priors).scatter_reduce_(0, gt, prior, "amin")
        taken = Pairs(targets.image, prior, gts)

        location = taken.location(num_priors)
        last = gts.new_full((targets.num_images * num_priors,), -1).scatter_reduce_(0, location, gts, "amax")
        return Assignment(taken, classifies=last[location] == gts)
