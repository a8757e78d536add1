"""PAA on dense [R, G] matrices, object by object, with scikit-learn's mixtures, as the official code does it."""

import warnings

import numpy as np
import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch import Tensor
from torchvision.ops import box_iou

from la_det.matchers import PAA
from la_det.references.atss import max_iou
from la_det.references.image import Image


def scores(logits: Tensor, boxes: Tensor, gts: Tensor, classes: Tensor, first: Tensor, alpha: float = 0.25) -> Tensor:
    """[R] focal loss over all classes + 1 - GIoU of each anchor with its ground truth; 0 without one."""
    s = torch.zeros(len(first))
    matched = (first >= 0).nonzero().squeeze(1)
    own = first[matched]
    one_hot = torch.zeros_like(logits[matched])
    one_hot[torch.arange(len(matched)), classes[own]] = 1
    focal = sigmoid_focal_loss(logits[matched], one_hot, alpha=alpha, gamma=2.0, reduction="none").sum(1)
    s[matched] = focal + giou_loss(boxes[matched], gts[own], reduction="none")
    return s


def assign(first: Tensor, s: Tensor, levels: Tensor, num_gts: int, k: int = 9) -> Tensor:
    """[R] ground truth of each positive anchor, -1 for background; from the anchors' own ones, scores and levels."""
    matched = torch.full_like(first, -1)
    for g in range(num_gts):
        parts = []
        for level in levels.unique():
            mine = ((first == g) & (levels == level)).nonzero().squeeze(1)
            parts.append(mine[s[mine].topk(min(k, len(mine)), largest=False).indices])
        candidates = torch.cat(parts)
        candidates = candidates[s[candidates].sort(stable=True).indices]
        if len(candidates) > 1:
            candidates = candidates[: num_positives(s[candidates].double().numpy())]
        matched[candidates] = g
    return matched


def num_positives(x: np.ndarray) -> int:
    """How many of the ascending scores are positive."""
    from sklearn.exceptions import ConvergenceWarning  # what only tests and benchmarks need
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        n_components=2,
        weights_init=[0.5, 0.5],
        means_init=[[x.min()], [x.max()]],
        precisions_init=np.ones((2, 1, 1)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(x[:, None])
    component, density = mixture.predict(x[:, None]), mixture.score_samples(x[:, None])
    if not (component == 0).any():
        return len(x)
    peak = density[component == 0].max()
    return int(np.flatnonzero((component == 0) & (density == peak))[0]) + 1


def rule(matcher: PAA, x: Image) -> Tensor:
    min_iou = matcher.first.foreground
    first = max_iou(box_iou(x.anchors, x.gts), min_iou, min_iou, to_that=False)
    s = scores(x.logits, x.priors.inset(x.boxes), x.priors.inset(x.gts), x.classes, first, matcher.alpha)
    return assign(first, s, x.priors.levels, len(x.gts), matcher.topk)
