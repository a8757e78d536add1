"""The dense part of a focal-style classification loss, in one pass over the logits.

Every scheme here has a loss of the form

    sum over all (prior, class) of b(p)  +  sum over few (prior, class) of a correction,

where b(p) = p^2 (-ln(1 - p)) is the focal loss (gamma = 2, without its alpha) of a background entry. So no target
tensor is needed: `background_loss` sums b over all entries with an analytic gradient. It also returns the logits of the
few entries, so that autograd can differentiate the corrections. Plain cross entropy is the
same with b(p) = -ln(1 - p).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.structures import DensePredictions, Queries, Score, chunks

_SMALLEST = torch.finfo(torch.float32).tiny
# Upper bound of logits with a gate: 1 - p = sigma(-c) + sigma(c) sigma(-f) must not underflow.
_LARGEST_LOGIT = 60.0


def background_loss(
    predictions: DensePredictions,
    score: Score,
    image: Tensor,
    prior: Tensor,
    cls: Tensor,
    dropped: tuple[Tensor, Tensor] | None = None,
    queries: Queries | None = None,
    *,
    focal: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum of b(p) = -p^2 ln(1 - p) over all images, priors and classes, and the logits at P chosen entries.

    Args:
        predictions: with the map "logits" and the map of the score's gate, if it has one.
        score: definition of p.
        image, prior, cls: int64 [P], the chosen entries.
        dropped: (image [D], prior [D]) of the priors that the sum leaves out (`Assignment.dropped`).
        queries: take the sum over these alone, whatever is dropped.
        focal: False means b(p) = -ln(1 - p), for scores without a gate.

    Returns:
        The sum (a scalar), c [P], and f [P] (None without a gate); all differentiable. With a gate, logits are clamped
        to at most 60, in the sum and in c and f.

    Raises:
        ValueError: plain cross entropy of a gated score.
    """
    if not focal and (score.gate is not None or queries is not None):
        raise ValueError("plain cross entropy has no form for gated scores or queries here; use a focal loss")
    if queries is not None:
        return _of_queries(predictions, score, queries, queries.at(image, prior), cls)
    rows = predictions.num_images * predictions.priors.per_cell
    levels = [(rows, h * w) for h, w in predictions.priors.grid_sizes]
    c = predictions.flat("logits")
    index = predictions.index("logits", image, prior, cls)
    if score.gate is None:
        entries = None
        if dropped is not None:
            of_image, of_prior = (x.unsqueeze(1) for x in dropped)
            classes = torch.arange(predictions.num_classes, device=c.device)
            entries = predictions.index("logits", of_image, of_prior, classes).flatten()
        return *_Background.apply(c, index, entries, _focal if focal else _cross_entropy), None
    mask = None if dropped is None else _mask(predictions, *dropped)
    gate_index = predictions.index(score.gate, image, prior)
    return _GatedBackground.apply(c, predictions.flat(score.gate), index, gate_index, mask, levels, score.square_root)


def _of_queries(
    predictions: DensePredictions, score: Score, queries: Queries, entry: Tensor, cls: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sum over queries, and the logits at entries [P] of theirs.

    Their logits are taken out of the maps and treated as a level of one row.
    """
    image, prior, mask = queries.image.flatten(), queries.prior.flatten(), ~queries.valid.flatten()
    classes = torch.arange(predictions.num_classes, device=prior.device).unsqueeze(1)
    c = predictions.flat("logits").index_select(0, predictions.index("logits", image, prior, classes).flatten())
    index, levels = cls * len(prior) + entry, [(1, len(prior))]  # c is [K, N Q]
    if score.gate is None:
        c = c.view(len(classes), -1).masked_fill(mask, -torch.inf).flatten()
        return *_Background.apply(c, index, None, _focal), None
    f = predictions.at(score.gate, image, prior).flatten().masked_fill(mask, -torch.inf)  # p = 0
    return _GatedBackground.apply(c, f, index, entry, None, levels, score.square_root)


def _mask(predictions: DensePredictions, image: Tensor, prior: Tensor) -> Tensor:
    """[N R] bool in the order of a flat map with one channel per prior, True at the given priors."""
    priors = predictions.priors
    first, step = priors.layout(predictions.num_images, priors.per_cell).index_select(0, prior).unbind(1)
    mask = torch.zeros(predictions.num_images * len(priors), dtype=torch.bool, device=prior.device)
    return mask.index_fill_(0, torch.addcmul(first, step, image * priors.per_cell), True)


def _split(flat: Tensor, levels: list[tuple[int, int]]) -> Iterator[Tensor]:
    """The levels (N A, h w) of a flat map as [N A, channels, h w]."""
    channels = len(flat) // sum(rows * cells for rows, cells in levels)
    parts = flat.split([rows * channels * cells for rows, cells in levels])
    return (part.view(rows, channels, cells) for part, (rows, cells) in zip(parts, levels, strict=True))


def _rows(levels: list[tuple[int, int]], *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For every level, image and prior of a cell: the part [channels, h w] of each flat map."""
    for level in zip(*(_split(x, levels) for x in maps), strict=True):
        yield from zip(*level, strict=True)


def _without(c: Tensor, mask: Tensor | None, levels: list[tuple[int, int]]) -> Tensor:
    """The logits, with minus infinity at masked priors: b and its gradients are 0 there."""
    if mask is None:
        return c
    c = c.clone()
    for level, masked in zip(_split(c, levels), _split(mask, levels), strict=True):
        level.masked_fill_(masked, -torch.inf)
    return c


class _Background(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, c: Tensor, index: Tensor, dropped: Tensor | None, entries: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """`entries(c, out)` returns the sum of b(sigma(c)) and writes db/dc to `out`, which may be `c` itself."""
        # The logits are copied only if entries are dropped.
        logits = c if dropped is None else c.index_fill(0, dropped, -torch.inf)
        grad, totals = torch.empty_like(c) if dropped is None else logits, []
        size = chunks.CPU_CHUNK if chunks.in_chunks(c.device) else max(len(c), 1)
        for x, out in zip(logits.split(size), grad.split(size), strict=True):
            totals.append(entries(x, out))
        ctx.save_for_backward(grad, index)
        return _sum(totals), c.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, grad_values: Tensor) -> tuple[Tensor, None, None, None]:
        grad, index = ctx.saved_tensors
        return (grad * grad_total).index_add_(0, index, grad_values), None, None, None


def _cross_entropy(c: Tensor, out: Tensor) -> Tensor:
    """-ln(1 - p), whose gradient is p."""
    total = F.softplus(c).sum()
    torch.sigmoid(c, out=out)
    return total


def _focal(c: Tensor, out: Tensor) -> Tensor:
    """-p^2 ln(1 - p), whose gradient is p^2 (2 (1 - p) (-ln(1 - p)) + p)."""
    p, complement = c.sigmoid(), c.neg().sigmoid_()  # 1 - p without cancellation
    # -ln(1 - p); beyond the smallest 1 - p in single precision it equals the logit.
    cost = complement.clamp(min=_SMALLEST).log_().neg_().maximum(c)
    p_squared = p * p
    torch.mul(complement, cost, out=out).mul_(2).add_(p).mul_(p_squared)
    return torch.dot(p_squared, cost)


class _GatedBackground(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        c: Tensor,
        f: Tensor,
        index: Tensor,
        gate_index: Tensor,
        mask: Tensor | None,
        levels: list[tuple[int, int]],
        square_root: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of b(p) and its gradients, for p = sigma(c) sigma(f) or its square root.

        With u = p db/dp = p (2 p (-ln(1 - p)) + p^2 / (1 - p)): db/dc = u sigma(-c) and db/df = u sigma(-f), summed
        over the classes, and half of that with the square root.
        """
        # Clamped as in the sum, so that a correction removes exactly what the sum contains.
        values = [x.index_select(0, i).clamp_(max=_LARGEST_LOGIT) for x, i in ((c, index), (f, gate_index))]
        c = _without(c, mask, levels)
        grad, gate_grad, totals = torch.empty_like(c), torch.empty_like(f), []
        if chunks.in_chunks(c.device):
            for x, gate, out, gate_out in _rows(levels, c, f, grad, gate_grad):
                gate_p, gate_complement = _sigmoids(gate)
                gate_out.zero_()
                size = max(chunks.CPU_CHUNK // max(x.shape[1], 1), 1)
                for part, part_out in zip(x.split(size), out.split(size), strict=True):
                    total, u = _gated(part, gate_p, gate_complement, square_root, part_out)
                    totals.append(total)
                    gate_out += u.sum(0, keepdim=True)
                gate_out *= gate_complement
        else:
            every_gate = torch.empty_like(c)
            for wide, gate in zip(_split(every_gate, levels), _split(f, levels), strict=True):
                wide.copy_(gate)
            gate_p, gate_complement = _sigmoids(every_gate)
            total, u = _gated(c, gate_p, gate_complement, square_root, grad)
            totals.append(total)
            u.mul_(gate_complement)
            for level, out in zip(_split(u, levels), _split(gate_grad, levels), strict=True):
                torch.sum(level, 1, keepdim=True, out=out)
        ctx.save_for_backward(grad, gate_grad, index, gate_index)
        return _sum(totals), *values

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *grad_values: Tensor) -> tuple[Tensor | None, ...]:
        grad, gate_grad, index, gate_index = ctx.saved_tensors
        grad = (grad * grad_total).index_add_(0, index, grad_values[0])
        gate_grad = (gate_grad * grad_total).index_add_(0, gate_index, grad_values[1])
        return grad, gate_grad, None, None, None, None, None


def _sigmoids(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clamp(max=_LARGEST_LOGIT)
    return x.sigmoid(), x.neg_().sigmoid_()


def _gated(c: Tensor, gate: Tensor, gate_complement: Tensor, square_root: bool, out: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of b, and u, or u / 2 with the square root; db/dc is written to `out`. The gate broadcasts."""
    class_p, class_complement = _sigmoids(c)
    p = class_p * gate
    # 1 - sigma(c) sigma(f) = sigma(-c) + sigma(c) sigma(-f): no cancellation near p = 1.
    complement = class_p.mul_(gate_complement).add_(class_complement)
    if square_root:
        p = p.sqrt_()
        complement.div_(1 + p)
    cost = complement.log().neg_()
    p_squared = p * p
    total = torch.dot(p_squared.view(-1), cost.view(-1))
    u = cost.mul_(2).mul_(p_squared).add_(p_squared.mul_(p).div_(complement))
    if square_root:
        u.mul_(0.5)
    torch.mul(u, class_complement, out=out)
    return total, u


def _sum(totals: list[Tensor]) -> Tensor:
    return totals[0] if len(totals) == 1 else torch.stack(totals).sum()
