"""What the dense form of a rule sees: one image, with all maps as rows.

The dense form of a matcher is a function `rule(matcher, image)`, which reads the matcher's options. It returns the
ground truth of each prior [R], -1 for background, -2 for a prior in no loss (for DW and AutoAssign the weights).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from la_det.structures import BoxCodec, DensePredictions, Priors, Score, Targets

PROGRESS = 0.5  # share of the training that is done, in all that is measured
NO_LOSS = -2  # of a prior that takes part in no loss


@dataclass(frozen=True)
class Image:
    """One image of a batch, with all maps as rows.

    Attributes:
        priors: priors of the branch.
        codec: what the box channels mean.
        score: score of the criterion.
        logits: [R, K] class logits.
        boxes: [R, 4] predicted boxes, XYXY pixels.
        raw_boxes: [R, 4] box channels.
        gates: name -> [R] logits of the maps "quality" and "filter", if the branch has them.
        gts: [G, 4] boxes of the ground truths.
        classes: [G] classes of the ground truths.
        size: (height, width).
        centroids: [G, 2] of the ground truths' masks; None without masks.
        queries: [D] priors that take part; None: all.
    """

    priors: Priors
    codec: BoxCodec
    score: Score
    logits: Tensor
    boxes: Tensor
    raw_boxes: Tensor
    gates: dict[str, Tensor]
    gts: Tensor
    classes: Tensor
    size: tuple[int, int]
    centroids: Tensor | None = None
    queries: Tensor | None = None

    @cached_property
    def p(self) -> Tensor:
        """[R, K] probabilities of the criterion's score, 0 where a prior does not take part."""
        p = self.logits.sigmoid()
        if self.score.gate is not None:
            p = self.score.gated(p, self.gates[self.score.gate].sigmoid().unsqueeze(1))
        return p if self.queries is None else torch.zeros_like(p).index_copy_(0, self.queries, p[self.queries])

    @property
    def place(self) -> tuple[Tensor, Tensor]:
        """Points [R, 2] and strides [R]."""
        return self.priors.points, self.priors.strides

    @property
    def ltrb(self) -> Tensor:
        """[R, 4] distances from points to the sides of their predicted boxes, pixels; small ones are exact."""
        return self.codec.decode(self.raw_boxes, self.priors.at_origin(), None) * torch.tensor([-1, -1, 1, 1])

    @property
    def anchors(self) -> Tensor:
        """[R, 4]."""
        assert self.priors.boxes is not None, "the rule is one for branches with anchors"
        return self.priors.boxes

    def begins_inside(self, pad_to: int | None) -> Tensor:
        """[R] whether a prior's cell begins inside the image, padded to a multiple; None takes all."""
        if pad_to is None:
            return torch.ones(len(self.priors), dtype=torch.bool)
        height, width = (math.ceil(side / pad_to) * pad_to for side in self.size)
        corner = self.priors.points - self.priors.shift - self.priors.offset * self.priors.strides.unsqueeze(1)
        return (corner[:, 0] < width) & (corner[:, 1] < height)


def images(score: Score, predictions: DensePredictions, targets: Targets) -> list[Image]:
    """The images of a batch with the predictions of one branch."""
    rows = {name: predictions.joined(name).transpose(1, 2) for name in predictions.maps}
    boxes = predictions.boxes()
    centroids = None if targets.masks is None else targets.masks.centroids
    return [
        Image(
            predictions.priors,
            predictions.codec,
            score,
            rows["logits"][i],
            boxes[i],
            rows["boxes"][i],
            {name: rows[name][i, :, 0] for name in ("quality", "filter") if name in rows},
            targets.boxes[targets.image == i],
            targets.classes[targets.image == i],
            targets.image_sizes[i],
            None if centroids is None else centroids[targets.image == i],
        )
        for i in range(targets.num_images)
    ]
