"""Random scenes for matchers that look at anchors."""

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from hypothesis import strategies as st
from torch import Tensor

from la_det.structures import AnchorGenerator, DeltaCodec, DensePredictions, Score, Targets

STRIDES = (8, 16, 32, 64, 128)
KINDS = ("object", "tiny", "huge", "degenerate", "duplicate", "outside", "on the grid", "narrow")


@dataclass(frozen=True)
class Scene:
    targets: Targets
    predictions: DensePredictions

    def assign(self, matcher):
        return matcher(self.predictions, self.targets, score=Score(), progress=0.0)

    def boxes(self, image: int) -> Tensor:
        """Continuous ground-truth boxes of an image."""
        return self.targets.boxes[self.targets.image == image]

    def decoded(self, image: int) -> Tensor:
        """Predicted boxes [R, 4] of an image."""
        prior = torch.arange(len(self.predictions.priors))
        return self.predictions.boxes_at(torch.full_like(prior, image), prior)

    def within_image(self, matched: Tensor) -> Tensor:
        """[N, R] indices into the batch's ground truths as indices into their image's."""
        counts = torch.tensor(self.targets.counts)
        first = (counts.cumsum(0) - counts).unsqueeze(1)
        return torch.where(matched >= 0, matched - first, matched)


def make_scene(boxes_per_image, size, generator: AnchorGenerator, seed: int = 0) -> Scene:
    """A scene with given ground truths and noisy box deltas."""
    boxes_per_image = [torch.as_tensor(boxes, dtype=torch.float32).view(-1, 4) for boxes in boxes_per_image]
    instances = [
        Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.zeros(len(boxes), dtype=torch.int64))
        for boxes in boxes_per_image
    ]
    grid_sizes = [(-(-size[0] // s), -(-size[1] // s)) for s in generator.strides]
    priors = generator(grid_sizes, torch.device("cpu"))
    noise = torch.Generator().manual_seed(seed)
    n, a = len(boxes_per_image), priors.per_cell
    maps = {
        name: [torch.randn(n, a * channels, h, w, generator=noise) for h, w in grid_sizes]
        for name, channels in (("logits", 2), ("boxes", 4), ("quality", 1))
    }
    codec = DeltaCodec(weights=(10.0, 10.0, 5.0, 5.0))
    return Scene(Targets.from_instances(instances), DensePredictions(priors, codec, maps))


@st.composite
def scenes(draw, generator: AnchorGenerator, kinds=KINDS) -> Scene:
    """1 to 3 images with ground truths of all kinds; boxes are continuous."""
    h, w = size = draw(st.sampled_from([(64, 64), (96, 136), (160, 224), (256, 8)]))
    seed = draw(st.integers(0, 2**32 - 1))
    random = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(draw(st.integers(1, 3))):
        boxes: list[list[float]] = []
        for kind in draw(st.lists(st.sampled_from(kinds), max_size=6)):
            x, y, dx, dy = (torch.rand(4, generator=random) * torch.tensor([w, h, w, h])).tolist()
            boxes.append(
                {
                    "object": [x, y, x + dx / 2 + 8, y + dy / 2 + 8],
                    "tiny": [x, y, x + 3, y + 2],
                    "huge": [-20.0, -30.0, w + 50.0, h + 10.0],
                    "degenerate": [x, y, x, y + 20],
                    "duplicate": boxes[-1] if boxes else [8.0, 8.0, 40.0, 40.0],
                    "outside": [w + 300.0, 0.0, w + 400.0, 50.0],
                    "on the grid": [x // 8 * 8, y // 8 * 8, x // 8 * 8 + 32, y // 8 * 8 + 48],
                    "narrow": [x, y, x + 100, y + 4],
                }[kind]
            )
        images.append(boxes)
    return make_scene(images, size, generator, seed)
