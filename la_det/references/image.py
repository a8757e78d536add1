"""What the dense form of a rule sees: one image, with all maps as rows.

The dense form of a matcher is a function `rule(matcher, image)`. It returns the ground truth of each prior [R], -1 for
background (for DW and AutoAssign the weights).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from la_det.structures import DensePredictions, Priors, Score, Targets

PROGRESS = 0.5  # share of the training that is done, in all that is measured


@dataclass(frozen=True)
class Image:
    """One image of a batch, with all maps as rows.

    Attributes:
        priors: priors of the branch.
        score: score of the criterion.
        logits: [R, K] class logits.
        boxes: [R, 4] predicted boxes, XYXY pixels.
        raw_boxes: [R, 4] box channels.
        gates: name -> [R] logits of the maps "quality" and "filter", if the branch has them.
        gts: [G, 4] boxes of the ground truths.
        classes: [G] classes of the ground truths.
        size: (height, width).
        queries: [D] priors that take part; None: all.
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

    def anchors(self) -> list[Tensor]:
        """Float64 anchors of each level, for the dense form of ATSS."""
        starts = self.priors.level_starts
        sizes = [end - start for start, end in zip(starts[:-1], starts[1:], strict=True)]
        return list(self.priors.boxes.double().split(sizes))


def images(score: Score, predictions: DensePredictions, targets: Targets) -> list[Image]:
    """The images of a batch with the predictions of one branch."""
    rows = {name: predictions.joined(name).transpose(1, 2) for name in predictions.maps}
    boxes = predictions.boxes()
    return [
        Image(
            predictions.priors,
            score,
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
