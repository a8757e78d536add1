"""Random scenes for property tests: ground truths of all kinds, and predictions around them."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances

from la_det.structures import Assignment, DensePredictions, LTRBCodec, PointGenerator, Priors, Targets

KINDS = ("object", "object", "tiny", "huge", "degenerate", "duplicate", "outside", "whole")


def grid_sizes(height: int, width: int, strides: Sequence[int] = (8, 16, 32, 64, 128)) -> list[tuple[int, int]]:
    return [(-(-height // s), -(-width // s)) for s in strides]


def make_targets(boxes: Sequence, classes: Sequence | None = None, size: tuple[int, int] = (128, 160)) -> Targets:
    """Targets from one list of boxes, and of classes (0 by default), per image."""
    instances = []
    for i, b in enumerate(boxes):
        b = torch.as_tensor(b, dtype=torch.float32).reshape(-1, 4)
        c = torch.zeros(len(b), dtype=torch.int64) if classes is None else torch.as_tensor(classes[i]).long()
        instances.append(Instances(size, gt_boxes=Boxes(b), gt_classes=c))
    return Targets.from_instances(instances)


def random_boxes(generator: torch.Generator, kinds: Sequence[str], height: int, width: int) -> torch.Tensor:
    """One box of each kind [len(kinds), 4], on quarters of pixels, so that areas and products are exact."""
    boxes: list[list[float]] = []
    for kind in kinds:
        x, y, dx, dy = torch.rand(4, generator=generator).tolist()
        box = {
            "object": [x * width * 0.8, y * height * 0.8, (x + dx) * width * 0.8 + 8, (y + dy) * height * 0.8 + 8],
            "tiny": [x * width, y * height, x * width + 5 * dx, y * height + 5 * dy],
            "huge": [-2000 * x, -500 * y, width + 3000 * dx, height + 100 * dy],
            "degenerate": [x * width, y * height, x * width, y * height + 40 * dy],
            "duplicate": boxes[-1] if boxes else [16, 16, 48, 64],
            "outside": [width + 200 * x, height + 10, width + 200 * x + 50, height + 60],
            "whole": [0, 0, width, height],
        }[kind]
        boxes.append([round(4 * v) / 4 for v in box])
    return torch.tensor(boxes).reshape(-1, 4)


def random_predictions(
    generator: torch.Generator,
    targets: Targets,
    height: int,
    width: int,
    num_classes: int,
    priors: Priors | None = None,
) -> DensePredictions:
    """Boxes near a random ground truth of the image, or noise, with some distances 0; logits between -6 and 6."""
    priors = PointGenerator()(grid_sizes(height, width), torch.device("cpu")) if priors is None else priors
    sizes = priors.grid_sizes
    n, r = targets.num_images, len(priors)
    ltrb = torch.rand(n, r, 4, generator=generator) * 4 * priors.strides[:, None]
    for i in range(n):
        boxes = targets.boxes[targets.image == i]
        if len(boxes):
            own = boxes[torch.randint(len(boxes), (r,), generator=generator)]
            near = torch.cat([priors.points - own[:, :2], own[:, 2:] - priors.points], -1)
            near = near * (0.5 + torch.rand(r, 4, generator=generator))
            use = torch.rand(r, 1, generator=generator) < 0.5
            ltrb[i] = torch.where(use, near, ltrb[i])
    ltrb = ltrb.clamp(min=0) * (torch.rand(n, r, 4, generator=generator) < 0.9)
    maps = {
        "logits": 12 * torch.rand(n, r, num_classes, generator=generator) - 6,
        "boxes": ltrb,
        "quality": torch.randn(n, r, 1, generator=generator),
        "filter": torch.randn(n, r, 1, generator=generator),
    }
    levels = {name: _to_levels(x, sizes) for name, x in maps.items()}
    return DensePredictions(priors, LTRBCodec(), levels)


def _to_levels(rows: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """Turns rows [N, R, C] into L maps [N, C, h, w]."""
    levels = rows.transpose(1, 2).split([h * w for h, w in sizes], 2)
    return [x.unflatten(2, hw).contiguous() for x, hw in zip(levels, sizes, strict=True)]


def flat(predictions: DensePredictions, name: str) -> torch.Tensor:
    """A map of all levels: [N, R, C]."""
    return torch.cat([x.flatten(2) for x in predictions.maps[name]], 2).transpose(1, 2)


def dense_matches(assignment: Assignment, num_images: int, num_priors: int) -> torch.Tensor:
    """[N, R] index in the batch of the ground truth for which each prior is positive; -1 for background.

    For schemes with at most one ground truth per prior.
    """
    dense = torch.full((num_images, num_priors), -1, device=assignment.pairs.gt.device)
    dense[assignment.pairs.image, assignment.pairs.prior] = assignment.pairs.gt
    return dense


def matched_in_image(assignment: Assignment, targets: Targets, num_priors: int) -> torch.Tensor:
    """[N, R] index in its image of the ground truth for which each prior is positive; -1 for background."""
    dense = dense_matches(assignment, targets.num_images, num_priors)
    starts = torch.tensor([sum(targets.counts[:i]) for i in range(targets.num_images)])
    return torch.where(dense < 0, -1, dense - starts.unsqueeze(-1))
