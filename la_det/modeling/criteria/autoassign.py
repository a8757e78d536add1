"""The losses of AutoAssign (Zhu et al., arXiv 2007.03496), on the weights of its matcher.

The weights are not detached: the first and the last term train the centre prior, too.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from la_det.losses.background import background_loss
from la_det.matchers.autoassign import EPS, SoftAssignment
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import count

LARGEST = 100.0  # of -ln B; so much costs a ground truth without a location, which nothing can change


def soft_assignment(decision: Decision) -> SoftAssignment:
    """The assignment, which AutoAssign's matcher made."""
    return cast(SoftAssignment, decision.assignment)


def bag_confidences(decision: Decision) -> Tensor:
    """[G] weighted mean of the confidences of each ground truth's pairs; 0 where it contains no location."""
    assignment = soft_assignment(decision)
    confidences = assignment.weight * assignment.confidence
    return confidences.new_zeros(len(decision.targets)).index_add(0, assignment.pairs.gt, confidences)


@dataclass(frozen=True)
class AutoAssignPositiveLoss:
    """Sum of -ln B over the ground truths, B their bag confidence, divided by their number.

    -ln B is at most 100, and its derivative by B at least -1e12, as PyTorch's cross entropy has it.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 0.25

    def __call__(self, decision: Decision) -> LossTerm:
        bag = bag_confidences(decision)
        value = bag.detach()
        gradient = (value - bag) / value.clamp(min=EPS)  # 0, with the derivative of -ln B
        loss = gradient.sum() - value.log().clamp(min=-LARGEST).sum()
        return LossTerm(loss, decision.num_gts, weight=self.weight)


@dataclass(frozen=True)
class AutoAssignNegativeLoss:
    """Sum of z^2 (-ln(1 - z)) over all locations and classes with z = p v; over the sum of the centre prior.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 0.75

    def __call__(self, decision: Decision) -> LossTerm:
        n, score = decision.assignment.negatives, decision.score
        background, c, f = background_loss(decision.predictions, score, n.image, n.prior, n.cls)
        log_p, log_complement = score.logs(c, f)
        # 1 - p v = (1 - p) + p (1 - v), a sum of positive numbers.
        lowered = log_complement.logaddexp(log_p + (1 - n.weight).log())
        correction = torch.dot((2 * log_p).exp(), log_complement - n.weight.square() * lowered)
        return LossTerm(background + correction, soft_assignment(decision).closeness.sum(), weight=self.weight)


@dataclass(frozen=True)
class AutoAssignCenterLoss:
    """Number of ground truths over the sum of their centre prior, averaged over this process's images.

    It keeps the prior from shrinking. An image in which no ground truth contains a location has none.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 0.75

    def __call__(self, decision: Decision) -> LossTerm:
        assignment, targets = soft_assignment(decision), decision.targets
        g = assignment.closeness
        total = g.new_zeros(targets.num_images).index_add(0, assignment.pairs.image, g)
        of_image = count(targets.image, targets.num_images) / total.clamp(min=EPS) * (total != 0)
        num_images = torch.full((), float(targets.num_images), device=g.device)
        return LossTerm(of_image.sum(), num_images, weight=self.weight, scope="local")
