"""Random scenes for DW and o2f, whose score is gated by the quality map."""

import torch
from detectron2.structures import BitMasks, Boxes, Instances
from hypothesis import strategies as st

from la_det.steps.candidates import inside_box
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator, Score, Targets

NUM_CLASSES = 3
SCORE = Score(gate="quality")
KINDS = ("object", "tiny", "huge", "degenerate", "duplicate", "outside")


def make_targets(boxes_per_image, classes_per_image, size, masks_per_image=None) -> Targets:
    instances = []
    for i, (boxes, classes) in enumerate(zip(boxes_per_image, classes_per_image, strict=True)):
        fields = {"gt_boxes": Boxes(torch.tensor(boxes).reshape(-1, 4)), "gt_classes": torch.tensor(classes).long()}
        if masks_per_image is not None:
            fields["gt_masks"] = BitMasks(masks_per_image[i])
        instances.append(Instances(size, **fields))
    return Targets.from_instances(instances)


def make_predictions(num_images, size, targets, generator) -> DensePredictions:
    """Boxes that vary around the last ground truth at a location, and noise elsewhere; all maps are leaves."""
    grid_sizes = [(-(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32, 64, 128)]
    priors = PointGenerator()(grid_sizes, torch.device("cpu"))

    def noise(channels):
        return [torch.randn(num_images, channels, h, w, generator=generator) for h, w in grid_sizes]

    boxes = torch.rand(num_images, len(priors), 4, generator=generator) * 4 * priors.strides.unsqueeze(-1)
    pairs = inside_box(priors, targets)
    exact = LTRBCodec().encode(targets.boxes[pairs.gt], priors, pairs.prior)
    boxes[pairs.image, pairs.prior] = exact * (1 + 0.3 * torch.randn(exact.shape, generator=generator)).clamp(min=0)
    levels = boxes.transpose(1, 2).split([h * w for h, w in grid_sizes], 2)
    maps = [x.unflatten(2, hw).contiguous() for x, hw in zip(levels, grid_sizes, strict=True)]
    leaves = {"logits": noise(NUM_CLASSES), "boxes": maps, "quality": noise(1)}
    leaves = {name: [x.requires_grad_() for x in levels] for name, levels in leaves.items()}
    return DensePredictions(priors, LTRBCodec(), leaves)


@st.composite
def scenes(draw):
    """Targets of 1 to 3 images with ground truths of all kinds, and predictions for them."""
    size = draw(st.sampled_from([(64, 64), (96, 136), (128, 200)]))
    h, w = size
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    boxes_per_image, classes_per_image = [], []
    for _ in range(draw(st.integers(1, 3))):
        boxes, classes = [], []
        for kind in draw(st.lists(st.sampled_from(KINDS), max_size=6)):
            x, y, dx, dy = (torch.rand(4, generator=generator) * torch.tensor([w, h, w, h])).tolist()
            box = {
                "object": [x, y, x + dx / 2 + 8, y + dy / 2 + 8],
                "tiny": [x, y, x + 3, y + 2],
                "huge": [-20.0, -30.0, w + 50.0, h + 10.0],
                "degenerate": [x, y, x, y + 20],
                "duplicate": boxes[-1] if boxes else [8.0, 8.0, 40.0, 40.0],
                "outside": [w + 300.0, 0.0, w + 400.0, 50.0],
            }[kind]
            boxes.append(box)
            # A duplicate is of the same class half of the time: an exact tie.
            classes.append(classes[-1] if boxes and classes and draw(st.booleans()) else draw(st.integers(0, 2)))
        boxes_per_image.append(boxes)
        classes_per_image.append(classes)
    targets = make_targets(boxes_per_image, classes_per_image, size)
    return targets, make_predictions(len(boxes_per_image), size, targets, generator)
