"""The dense part of a focal-style classification loss, in one pass over the logits.

Every scheme here has a loss of the form

    sum over all (prior, class) of b(p)  +  sum over few (prior, class) of a correction,

where b(p) = p^2 (-ln(1 - p)) is the focal loss (gamma = 2, without its alpha) of a background entry. So no target
tensor is needed: `background_loss` sums b over all entries with an analytic gradient and, in the same function, hands
out the logits of the few entries, through which autograd differentiates the corrections.
"""

import torch
from torch import Tensor

from la_det.structures import DensePredictions, Score

_SMALLEST = torch.finfo(torch.float32).tiny
# With a gate, 1 - p = sigma(-c) + sigma(c) sigma(-f) and must not underflow.
_LARGEST_LOGIT = 60.0
# Intermediate values of a chunk stay in the processor's cache: 4 times faster than whole maps on a CPU.
_CPU_CHUNK = 1 << 16


def background_loss(
    predictions: DensePredictions,
    score: Score,
    image: Tensor,
    prior: Tensor,
    cls: Tensor,
    dropped: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum of b(p) = -p^2 ln(1 - p) over all images, priors and classes, and the logits at P chosen entries.

    Args:
        predictions: with maps "logits" and, where the score has one, its gate.
        score: p = sigma(c) or p = sigma(c) sigma(f).
        image, prior, cls: int64 [P], the chosen entries.
        dropped: (image [D], prior [D]) that the sum leaves out (`Assignment.dropped`).

    Returns:
        The sum (a scalar), c [P], and f [P] (None without a gate); all differentiable. With a gate logits count as at
        most 60, in the sum and in c and f.
    """
    chosen = [predictions.elements("logits", image, prior, cls)]
    maps = list(predictions.maps["logits"])
    if score.gate is not None:
        if predictions.priors.per_cell != 1:
            raise ValueError("a gated score needs one prior per cell")
        chosen.append(predictions.elements(score.gate, image, prior, torch.zeros_like(cls)))
        maps += predictions.maps[score.gate]
    masks = None if dropped is None else _mask_maps(predictions, *dropped)
    total, c, *f = _Background.apply(chosen, masks, *maps)
    return total, c, f[0] if f else None


def _mask_maps(predictions: DensePredictions, image: Tensor, prior: Tensor) -> list[Tensor]:
    """Per level, a map [N, A, 1, h, w] that is True at the given priors."""
    priors = predictions.priors
    mask = torch.zeros(predictions.num_images, len(priors), dtype=torch.bool, device=prior.device)
    mask[image, prior] = True
    levels = mask.split([h * w * priors.per_cell for h, w in priors.grid_sizes], 1)
    return [
        level.view(-1, 1, h, w, priors.per_cell).permute(0, 4, 1, 2, 3)
        for level, (h, w) in zip(levels, priors.grid_sizes, strict=True)
    ]


class _Background(torch.autograd.Function):
    @staticmethod
    def forward(ctx, chosen, masks, *maps):
        levels = len(maps) // len(chosen)
        logits, gates = maps[:levels], maps[levels:]
        totals, grads, gate_grads = [], [], []
        for level, c in enumerate(logits):
            if masks is not None:  # b and its gradients are 0 at minus infinity
                n, a, _, h, w = masks[level].shape
                c = c.reshape(n, a, -1, h, w).masked_fill(masks[level], -torch.inf).view(c.shape)
            if gates:
                total, grad, gate_grad = _gated(c, gates[level])
                gate_grads.append(gate_grad)
            else:
                total, grad = _plain(c)
            totals.append(total)
            grads.append(grad)
        ctx.chosen = chosen
        ctx.save_for_backward(*grads, *gate_grads)
        values = [_pick(part, *where) for part, where in zip((logits, gates), chosen, strict=False)]
        if gates:  # as in the sum, so that a correction takes away just what the sum holds
            values = [x.clamp(max=_LARGEST_LOGIT) for x in values]
        return torch.stack(totals).sum(), *values

    @staticmethod
    def backward(ctx, grad_total, *grad_values):
        grads = [g * grad_total for g in ctx.saved_tensors]
        levels = len(grads) // len(ctx.chosen)
        for part, ((indices, masks), grad_value) in enumerate(zip(ctx.chosen, grad_values, strict=True)):
            for grad, index, here in zip(grads[part * levels :], indices, masks, strict=False):
                grad.view(-1).index_add_(0, index, torch.where(here, grad_value, 0))
        return None, None, *grads


def _pick(maps, indices, masks) -> Tensor:
    values = maps[0].new_zeros(indices[0].shape)
    for elements, index, here in zip(maps, indices, masks, strict=True):
        values = torch.where(here, elements.reshape(-1)[index], values)
    return values


def _plain(c: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of b(sigma(c)) and its gradient db/dc = p^2 (2 (1 - p) (-ln(1 - p)) + p)."""
    grad = torch.empty(c.shape, dtype=c.dtype, device=c.device)
    c, flat = c.reshape(-1), grad.view(-1)
    chunk = _CPU_CHUNK if c.device.type == "cpu" else max(c.numel(), 1)
    totals = []
    for x, out in zip(c.split(chunk), flat.split(chunk), strict=True):
        p, complement = x.sigmoid(), x.neg().sigmoid_()  # 1 - p without cancellation
        # -ln(1 - p); beyond the smallest 1 - p in single precision it equals the logit.
        cost = complement.clamp(min=_SMALLEST).log_().neg_().maximum(x)
        p_squared = p * p
        totals.append(torch.dot(p_squared, cost))
        torch.mul(complement, cost, out=out).mul_(2).add_(p).mul_(p_squared)
    return torch.stack(totals).sum(), grad


def _gated(c: Tensor, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of b(sigma(c) sigma(f)) and its gradients; c [N, K, h, w], f [N, 1, h, w].

    With u = dp db/dp = p (2 p (-ln(1 - p)) + p^2 / (1 - p)): db/dc = u sigma(-c) and db/df = u sigma(-f), summed
    over the classes.
    """
    f = f.clamp(max=_LARGEST_LOGIT)
    gate, gate_complement = f.sigmoid(), f.neg().sigmoid()
    grad = torch.empty(c.shape, dtype=c.dtype, device=c.device)
    gate_grad = torch.empty(f.shape, dtype=f.dtype, device=f.device)
    rows = max(_CPU_CHUNK // max(c[0, 0].numel(), 1), 1) if c.device.type == "cpu" else c.shape[1]
    totals = []
    for n in range(len(c)) if c.device.type == "cpu" else (slice(None),):
        u_sum = torch.zeros_like(gate[n])
        for x, out in zip(c[n].split(rows, -3), grad[n].split(rows, -3), strict=True):
            x = x.clamp(max=_LARGEST_LOGIT)
            class_p, class_complement = x.sigmoid(), x.neg_().sigmoid_()
            p = class_p * gate[n]
            # 1 - sigma(c) sigma(f) = sigma(-c) + sigma(c) sigma(-f): no cancellation near p = 1.
            complement = class_p.mul_(gate_complement[n]).add_(class_complement)
            cost = complement.log().neg_()
            p_squared = p * p
            totals.append(torch.dot(p_squared.reshape(-1), cost.reshape(-1)))
            u = cost.mul_(2).mul_(p_squared).add_(p_squared.mul_(p).div_(complement))
            u_sum += u.sum(-3, keepdim=True)
            torch.mul(u, class_complement, out=out)
        torch.mul(u_sum, gate_complement[n], out=gate_grad[n])
    return torch.stack(totals).sum(), grad, gate_grad
