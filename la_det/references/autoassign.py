"""AutoAssign on dense [R, G] and [R, K] tensors with autograd, as the official code does it."""

import torch
from torch import Tensor

from la_det.matchers import AutoAssign
from la_det.references.image import Image


def weights(
    q: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, gts: Tensor, classes: Tensor, mu: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w [R, G], v [R, K], g [R, G] and P [R, G] of one image.

    From probabilities q [R, K], predicted boxes [R, 4], points [R, 2], strides [R], and the centre prior's mu and sigma
    [K, 2]. All but v carry gradient.
    """
    iou, giou = _iou_giou(boxes, gts)
    distances = torch.cat([points[:, None] - gts[:, :2], gts[:, 2:] - points[:, None]], 2)
    inside = (distances > 0).all(2)
    d = (points[:, None] - (gts[:, :2] + gts[:, 2:]) / 2) / strides[:, None, None]
    g = torch.exp(-((d - mu[classes]) ** 2) / (2 * sigma[classes] ** 2)).prod(2) * inside
    p = q[:, classes] * torch.exp(-5 * (1 - giou))
    w = torch.exp(3 * p) * g
    w = w / w.sum(0).clamp(min=1e-12)

    v = torch.ones_like(q).detach()
    for j, c in enumerate(classes.tolist()):
        m = iou.detach().amax(1)[inside[:, j]]
        if len(m):
            x = 1 / (1 - m).clamp(min=1e-12)
            v[inside[:, j], c] = 1 - (x - x.min() + 1e-12) / (x.max() - x.min() + 1e-12)
    return w, v, g, p


def losses(q: Tensor, w: Tensor, v: Tensor, g: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the positive and negative losses of one image, not yet divided, and its centre loss."""
    bag = (w * p).sum(0)
    positive = -torch.where(bag > 0, bag, 1).log() + 100 * (bag == 0)
    z = q * v
    center = w.shape[1] / g.sum() if g.sum() > 0 else g.sum()
    return positive.sum(), (z**2 * -torch.log1p(-z)).sum(), center


def _iou_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """[R, G] IoU and generalised IoU of boxes [R, 4] and [G, 4]."""
    a, b, eps = a[:, None], b[None], 1.1920929e-07

    def area(lower: Tensor, upper: Tensor) -> Tensor:
        return (upper - lower).clamp(min=0).prod(-1)

    overlap = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    hull = area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - overlap
    iou = overlap / union.clamp(min=eps)
    return iou, iou - (hull - union) / hull.clamp(min=eps)


def rule(matcher: AutoAssign, x: Image) -> tuple[Tensor, ...]:
    return weights(x.p, x.boxes, *x.place, x.gts, x.classes, matcher.mu, matcher.sigma)
