"""PAA: probabilistic anchor assignment (Kim and Lee, ECCV 2020).

Constants and stopping rule are those of the official code, which fits its mixtures with scikit-learn. The stopping rule
is part of the method: most fits stop at their third iteration, and converged ones would give every second ground truth
other positives.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import aligned_giou
from la_det.matchers.max_iou import MaxIoU
from la_det.steps.select import rank_in_group
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets, chunks

# Of the fit, as scikit-learn's GaussianMixture has them.
TOL = 1e-3  # change of the mean log likelihood below which a fit stops
REG_COVAR = 1e-6  # added to variances, in squares of the score
VARIANCE = 1.0  # initial, whatever the scale of the scores
MAX_ITER = 100
EPS = 10 * torch.finfo(torch.float64).eps  # added to the size of a component
LOOK = 10  # iterations between looks at which fits have stopped


class PAA:
    """A mixture of two Gaussians, fitted to the losses of a ground truth's candidates, says which are positive.

    An anchor belongs to the ground truth that it overlaps most, if that is enough or it is a best anchor of some ground
    truth. Its score is what it would cost now as a positive, and of each level the anchors of smallest score are
    candidates. Those up to the peak of the component of small scores are positive, all others background.

    Args:
        min_iou: smallest IoU of an anchor and its ground truth; best anchors may have less.
        topk: candidates of each ground truth and level.
        alpha: of the focal loss in the score.
    """

    def __init__(self, *, min_iou: float = 0.1, topk: int = 9, alpha: float = 0.25):
        self.first = MaxIoU(foreground=min_iou, background=min_iou, reassign_best=False)
        self.topk = topk
        self.alpha = alpha

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        pairs = self.first(predictions, targets, score=score, progress=progress).pairs
        s = self.scores(predictions, targets, pairs, score)
        candidates = best_of_levels(pairs, s, predictions.priors, len(targets), self.topk)
        positive = up_to_peak(candidates, fit(candidates)).flatten()
        return Assignment(pairs[candidates.pair.flatten()[positive]])  # host synchronisation: their number

    def scores(self, predictions: DensePredictions, targets: Targets, pairs: Pairs, score: Score) -> Tensor:
        """S [P] of the pairs: the focal loss over all classes with the ground truth's as target, plus 1 - GIoU."""
        own, inset = targets.classes.index_select(0, pairs.gt), predictions.priors.inset
        size = chunks.CPU_CHUNK // predictions.num_classes if chunks.in_chunks(own.device) else len(own)
        parts = zip(*(x.split(max(size, 1)) for x in (pairs.image, pairs.prior, own)), strict=True)
        focal = torch.cat([self.focal_loss(predictions, score, *part) for part in parts])
        boxes, gt_boxes = predictions.boxes_at(pairs.image, pairs.prior), targets.boxes.index_select(0, pairs.gt)
        return focal + 1 - aligned_giou(inset(boxes), inset(gt_boxes))

    def focal_loss(
        self, predictions: DensePredictions, score: Score, image: Tensor, prior: Tensor, own: Tensor
    ) -> Tensor:
        """[P] focal loss over all classes at P (image, prior), with class `own` [P] as target."""
        classes, own = torch.arange(predictions.num_classes, device=own.device), own.unsqueeze(0)
        index = predictions.index("logits", image.unsqueeze(0), prior.unsqueeze(0), classes.unsqueeze(1))
        c = predictions.flat("logits").index_select(0, index.flatten()).view_as(index)  # [K, P]
        f = None if score.gate is None else predictions.at(score.gate, image, prior).T
        log_p, log_complement = score.logs(c, f)
        background = (1 - log_complement.exp()).square_().mul_(log_complement)
        background = background.sum(0) - background.gather(0, own)
        positive = (2 * log_complement.gather(0, own)).exp_() * log_p.gather(0, own)
        return -torch.add((1 - self.alpha) * background, positive, alpha=self.alpha).squeeze(0)


@dataclass(frozen=True)
class Candidates:
    """At most n candidates of each ground truth, by ascending score; every field is a tensor [G, n].

    Attributes:
        pair: index into the list of pairs.
        score: S, float64; 0 where there is no candidate.
        exist: bool, which places have one: the first of each row.
    """

    pair: Tensor
    score: Tensor
    exist: Tensor


def best_of_levels(pairs: Pairs, s: Tensor, priors: Priors, num_gts: int, k: int) -> Candidates:
    """Of each ground truth and level the k pairs of smallest S [P], fewer where there are fewer."""
    num_levels = len(priors.level_strides)
    group = pairs.gt * num_levels + priors.levels.index_select(0, pairs.prior)
    order, rank = rank_in_group(group, -s, num_gts * num_levels)
    # Each pair to its place in a table; those behind the first k to one more place, which is cut off.
    num_places = num_gts * num_levels * k
    place = (group[order] * k + rank).masked_fill(rank >= k, num_places)
    pair = order.new_full((num_places + 1,), len(s)).index_copy_(0, place, order)
    pair = pair[:num_places].view(num_gts, num_levels * k)
    score, order = F.pad(s, (0, 1), value=torch.inf)[pair].sort(stable=True)
    pair = pair.gather(1, order)
    exist = pair < len(s)
    return Candidates(pair, score.double().masked_fill(~exist, 0), exist)


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians for each of G ground truths; the first one started at the smallest score.

    Attributes:
        parameters: [3, 2, G] float64: weights, means and variances of both.
        iterations: [G] int64, of the fit.
    """

    parameters: Tensor
    iterations: Tensor


def fit(candidates: Candidates) -> Mixture:
    """Expectation maximisation of all ground truths at once, each until its own stop.

    From weights 1/2, the smallest and the largest score, and variances 1.
    """
    x, count = candidates.score, candidates.exist.sum(1, keepdim=True)
    mean = torch.stack([x[:, :1], x.gather(1, (count - 1).clamp_(min=0))])  # [2, G, 1]
    state = [torch.full_like(mean, 0.5), mean, torch.full_like(mean, VARIANCE)]
    parameters, iterations = x.new_empty(len(x), 3, 2), torch.zeros_like(count).squeeze(1)

    # Of the fits that go on: which ground truths' they are, and the mean log likelihood.
    row, bound = torch.arange(len(x), device=x.device), x.new_full((len(x), 1), -torch.inf)
    exist = candidates.exist.double()
    data = x, exist, exist / count.clamp(min=1)
    for _ in range(0, MAX_ITER, LOOK):
        states: list[Tensor] = []
        bounds = [bound]
        for _ in range(LOOK):
            *state, bound = em_step(*data, *state)
            states += state
            bounds.append(bound)
        # Each fit has the parameters of its first iteration that changes little, or of the last one. NaN stops, too.
        goes_on = torch.cat(bounds, 1).diff().abs_() >= TOL  # [g, LOOK]
        steps = goes_on.cumprod(1).sum(1)  # before the one that stops
        last = steps.clamp(max=LOOK - 1)
        table = torch.stack(states).view(LOOK, 3, 2, -1)
        parameters.index_copy_(0, row, table[last, ..., torch.arange(len(row), device=x.device)])
        iterations.index_add_(0, row, last + 1)
        going_on = (steps == LOOK).nonzero().squeeze(1)  # host synchronisation: one look at the stop
        if not len(going_on):
            break
        row, bound, state = row[going_on], bound[going_on], [x[:, going_on] for x in state]
        data = tuple(x.index_select(0, going_on) for x in data)
    return Mixture(parameters.permute(1, 2, 0), iterations)


def em_step(x: Tensor, exist: Tensor, share: Tensor, weight: Tensor, mean: Tensor, variance: Tensor) -> list[Tensor]:
    """One iteration.

    Args:
        x: [G, n] scores.
        exist: [G, n] 1 where there is one, else 0.
        share: [G, n] the same, divided by their number.
        weight, mean, variance: [2, G, 1] each.

    Returns:
        The last three after it; and [G, 1], the mean log likelihood of those before it.
    """
    log_parts = log_densities(x, weight, mean, variance)
    log_density = torch.logaddexp(*log_parts)
    bound = (log_density * share).sum(1, keepdim=True)
    responsibility = (log_parts - log_density).exp_().mul_(exist)
    size = responsibility.sum(2, keepdim=True) + EPS
    mean = (responsibility * x).sum(2, keepdim=True) / size
    variance = (x - mean).square_().mul_(responsibility).sum(2, keepdim=True).div_(size).add_(REG_COVAR)
    return [size / size.sum(0), mean, variance, bound]


def log_densities(x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """[2, G, n] ln(weight N(x; mean, variance)) of scores x [G, n] and parameters [2, G, 1]."""
    peak = (weight / (variance * (2 * math.pi)).sqrt_()).log_()
    return torch.addcdiv(peak, (x - mean).square_(), variance, value=-0.5)


def up_to_peak(candidates: Candidates, mixture: Mixture) -> Tensor:
    """[G, n] bool: candidates up to the one of largest density among those of the first component.

    That includes members of the second component in between. Where the first has no member, all candidates.
    """
    x, exist = candidates.score, candidates.exist
    log_parts = log_densities(x, *mixture.parameters.unsqueeze(-1))
    member = exist & (log_parts[0] >= log_parts[1])
    peak = torch.logaddexp(*log_parts).masked_fill_(~member, -torch.inf).argmax(1, keepdim=True)
    # Equal scores have equal densities, but for rounding; the first of them is the peak.
    peak = (exist & (x < x.gather(1, peak))).sum(1, keepdim=True)
    place = torch.arange(x.shape[1], device=x.device)
    return exist & ((place <= peak) | ~member.any(1, keepdim=True))
