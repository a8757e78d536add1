"""The straightforward form of every scheme, to measure ours beside: what the tests use as reference.

Assignment by the dense versions in la_det/references, image by image; losses by fvcore's focal loss on one-hot
targets over all locations and its GIoU loss at the positives (DW: the losses of its reference), with autograd.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch import Tensor
from torchvision.ops import box_iou

from la_det import matchers
from la_det.modeling.criteria import Criterion
from la_det.references import atss, dw, hungarian, lla, o2f, poto
from la_det.structures import DensePredictions, Priors, Score, Targets

PROGRESS = 0.5  # share of the training that is done, in all that is measured
MAX_PAIR_LOGITS = 2e8  # what a dense rule may expand per image: beyond this the foreground loss needs over 10 GB


@dataclass(frozen=True)
class Image:
    """One image of a batch, with all maps as rows.

    Attributes:
        priors: of the branch.
        score: of the criterion.
        logits: [R, K].
        boxes: [R, 4] predicted, XYXY pixels.
        raw_boxes: [R, 4] box channels.
        gates: name -> [R] of the maps "quality" and "filter", where the branch has them.
        gts: [G, 4].
        classes: [G].
        size: (height, width).
    """

    priors: Priors
    score: Score
    logits: Tensor
    boxes: Tensor
    raw_boxes: Tensor
    gates: dict[str, Tensor]
    gts: Tensor
    classes: Tensor
    size: tuple[int, int]

    @cached_property
    def p(self) -> Tensor:
        """[R, K] probabilities of the criterion's score."""
        p = self.logits.sigmoid()
        return p if self.score.gate is None else p * self.gates[self.score.gate].sigmoid().unsqueeze(1)

    @property
    def place(self) -> tuple[Tensor, Tensor]:
        """Points [R, 2] and strides [R]."""
        return self.priors.points, self.priors.strides

    def anchors(self) -> list[Tensor]:
        """Float64 anchors of each level, as the reference of ATSS wants them."""
        starts = self.priors.level_starts
        sizes = [end - start for start, end in zip(starts[:-1], starts[1:], strict=True)]
        return list(self.priors.boxes.double().split(sizes))


def images(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> list[Image]:
    """The batch as the criterion's branch predicts it."""
    rows = {name: predictions.joined(name).transpose(1, 2) for name in predictions.maps}
    boxes = predictions.boxes()
    return [
        Image(
            predictions.priors,
            criterion.score,
            rows["logits"][i],
            boxes[i],
            rows["boxes"][i],
            {name: rows[name][i, :, 0] for name in ("quality", "filter") if name in rows},
            targets.boxes[targets.image == i],
            targets.classes[targets.image == i],
            targets.image_sizes[i],
        )
        for i in range(targets.num_images)
    ]


def _fcos(matcher: matchers.FCOS, x: Image) -> Tensor:
    return poto.fcos(*x.place, x.priors.levels, x.gts, matcher.center_radius)


def _poto(matcher: matchers.POTO, x: Image) -> Tensor:
    q = poto.quality(x.p, x.boxes, x.gts, x.classes)
    region = poto.omega(*x.place, x.gts, matcher.center_radius)
    return poto.hungarian(q.masked_fill(~region, matcher.outside)) if matcher.hungarian else poto.argmax(q, region)


def _aux(matcher: matchers.POTOAux, x: Image) -> Tensor:
    q = poto.quality(x.p, x.boxes, x.gts, x.classes)
    return poto.aux(q, x.priors.points, x.priors.levels, x.gts)[0]


def _foreground_loss(matcher: matchers.ForegroundLoss, x: Image) -> Tensor:
    cost = poto.foreground_cost(x.logits, x.boxes, x.gts, x.classes)
    return poto.hungarian(-cost.masked_fill(~poto.omega(*x.place, x.gts, matcher.center_radius), 1e8))


def _max_iou(matcher: matchers.MaxIoU, x: Image) -> Tensor:
    iou = box_iou(x.priors.boxes, x.gts)
    return atss.max_iou(iou, matcher.foreground, matcher.background, matcher.best_anchors == "that")


def _o2f(matcher: matchers.O2F, x: Image) -> Tensor:
    centers = (x.gts[:, :2] + x.gts[:, 2:]) / 2
    largest = matcher.largest_soft_target(PROGRESS)
    quality = x.gates["quality"]
    return o2f.assign(x.logits, quality, x.boxes, *x.place, x.gts, x.classes, centers, largest, matcher.topk)[0]


RULES: dict[type, Callable[..., Tensor]] = {
    matchers.ATSS: lambda matcher, x: atss.atss(x.anchors(), x.gts.double(), 0)[0],
    matchers.DynamicATSS: lambda matcher, x: atss.atss(x.anchors(), x.gts.double(), 0, x.boxes.double())[0],
    matchers.DW: lambda matcher, x: dw.weights(
        x.logits, x.gates["quality"], x.boxes, *x.place, x.gts, x.classes, matcher.soft_prior
    ),
    matchers.FCOS: _fcos,
    matchers.ForegroundLoss: _foreground_loss,
    matchers.Hungarian: lambda matcher, x: hungarian.assign(x.logits, x.boxes, x.gts, x.classes, x.size),
    matchers.LLA: lambda matcher, x: lla.assign(lla.costs(x.logits, x.raw_boxes, x.priors.points, x.gts, x.classes))[0],
    matchers.MaxIoU: _max_iou,
    matchers.O2F: _o2f,
    matchers.OneToOneAnchor: lambda matcher, x: poto.anchor(x.priors.boxes, x.gts),
    matchers.OneToOneCenter: lambda matcher, x: poto.center(x.priors.points, x.priors.levels, x.gts),
    matchers.POTO: _poto,
    matchers.POTOAux: _aux,
}


def fits(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> bool:
    """Whether the dense rule fits into the memory of an ordinary machine."""
    pairs = len(predictions.priors) * max(targets.counts)
    return not isinstance(criterion.matcher, matchers.ForegroundLoss) or (
        pairs * predictions.num_classes <= MAX_PAIR_LOGITS
    )


@torch.no_grad()
def assign(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> list:
    """Per image what the dense rule gives: the ground truth of each prior [R], or DW's weights."""
    rule = RULES[type(criterion.matcher)]
    return [rule(criterion.matcher, x) for x in images(criterion, predictions, targets)]


def loss(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> Tensor:
    """Scalar: classification and box loss on the dense assignment, averaged over the positives."""
    decisions = assign(criterion, predictions, targets)
    total, count = torch.zeros(()), 0
    for x, decision in zip(images(criterion, predictions, targets), decisions, strict=True):
        if isinstance(criterion.matcher, matchers.DW):
            total = total + sum(dw.losses(x.logits, x.gates["quality"], x.boxes, x.gts, x.classes, *decision))
            count += len(x.gts)
            continue
        positive = (decision >= 0).nonzero().squeeze(1)
        gt = decision[positive]
        one_hot = torch.zeros_like(x.logits)
        one_hot[positive, x.classes[gt]] = 1
        total = total + sigmoid_focal_loss(x.logits, one_hot, alpha=0.25, gamma=2.0, reduction="sum")
        total = total + giou_loss(x.boxes[positive], x.gts[gt], reduction="sum")
        count += len(positive)
    return total / max(count, 1)
