"""The ground truths of a batch as one list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from la_det.structures.counting import count
from la_det.structures.masks import Masks
from la_det.structures.no_wait import move
from la_det.structures.priors import Priors

T = TypeVar("T")


@dataclass(frozen=True)
class Targets:
    """The G ground truths of N images, image by image.

    Attributes:
        boxes: [G, 4] XYXY pixels of the network input.
        classes: [G] int64, 0..K-1.
        image: [G] int64, index of the image.
        counts: number of ground truths of each image (on the host).
        image_sizes: (height, width) of each image before padding.
        ignored: [G] bool, ground truths that are neither object nor background (crowd regions); None if there are none.
        masks: masks of the ground truths, for instance segmentation.
    """

    boxes: Tensor
    classes: Tensor
    image: Tensor
    counts: tuple[int, ...]
    image_sizes: tuple[tuple[int, int], ...]
    ignored: Tensor | None = None
    masks: Masks | None = None
    _once: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def num_images(self) -> int:
        return len(self.counts)

    @cached_property
    def centers(self) -> Tensor:
        """[G, 2] box centres (x, y)."""
        return self.boxes.view(-1, 2, 2).mean(1)

    @cached_property
    def areas(self) -> Tensor:
        """[G] box areas in square pixels."""
        return (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    def kinds(self, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """The (image, class) that ground truths are of, image [U] and class [U], and [G] which of them each is of.

        U is a bound of their number that no GPU needs to be asked for; the rest is image 0 and class 0. Found once.
        """
        key = "kinds", num_classes
        if key not in self._once:
            entry = self.image * num_classes + self.classes
            present = torch.zeros(self.num_images * num_classes, dtype=torch.bool, device=entry.device)
            present.index_fill_(0, entry, True)
            size = min(len(entry), len(present))
            kinds = torch.nonzero_static(present, size=size, fill_value=0).squeeze(1)
            kind = (present.cumsum(0) - 1).index_select(0, entry)
            self._once[key] = kinds.div(num_classes, rounding_mode="floor"), kinds % num_classes, kind
        return self._once[key]

    @property
    def objects(self) -> Tensor:
        """Indices [g] of the ground truths that are not ignored."""
        if self.ignored is None:
            return torch.arange(len(self), device=self.boxes.device)
        return (~self.ignored).nonzero().squeeze(1)  # host synchronisation: their number

    @classmethod
    def from_instances(cls, instances: Sequence[Instances], device: torch.device | None = None) -> "Targets":
        """The targets of one `Instances` of Detectron2 per image, with `gt_boxes` and `gt_classes`.

        Optional fields are `ignored` [g] bool, and `gt_masks` for all images or for none; only `BitMasks` are kept.
        """
        counts = tuple(len(i) for i in instances)
        boxes = torch.cat([i.gt_boxes.tensor for i in instances]).float()
        device = boxes.device if device is None else device
        ignored = torch.cat(
            [i.ignored if i.has("ignored") else torch.zeros(len(i), dtype=torch.bool) for i in instances]
        )
        image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        has_masks = instances[0].has("gt_masks") and isinstance(instances[0].gt_masks, BitMasks)
        return cls(
            move(boxes, device),
            move(torch.cat([i.gt_classes for i in instances]), device),
            move(image, device),
            counts,
            tuple(i.image_size for i in instances),
            move(ignored, device) if ignored.any() else None,
            Masks(tuple(move(i.gt_masks.tensor, device) for i in instances)) if has_masks else None,
        )

    def once(self, make: Callable[[Priors, "Targets"], T], priors: Priors) -> T:
        """`make(priors, self)`, or what it returned when it was called with the same priors before.

        So branches that look for the same pairs wait for their number once.
        """
        key = make, id(priors)
        if key not in self._once:
            self._once[key] = priors, make(priors, self)  # with the priors, so that no others get their id
        return self._once[key][1]

    def without_ignored(self) -> "Targets":
        """The targets without the ignored ground truths, whose area becomes ordinary background."""
        if self.ignored is None:
            return self
        objects = self.objects
        image = self.image[objects]
        counts = count(image, self.num_images)
        return replace(
            self,
            boxes=self.boxes[objects],
            classes=self.classes[objects],
            image=image,
            counts=tuple(counts.tolist()),  # host synchronisation
            ignored=None,
            masks=None if self.masks is None else self.masks.select(~self.ignored),
        )

    def alone(self, gts: Tensor) -> "Targets":
        """The ground truths `gts` [g] in g images, each alone in a copy of its image."""
        indices, images = torch.stack([gts, self.image[gts]]).tolist()  # host synchronisation
        return Targets(
            boxes=self.boxes[gts],
            classes=self.classes[gts],
            image=torch.arange(len(gts), device=gts.device),
            counts=(1,) * len(gts),
            image_sizes=tuple(self.image_sizes[i] for i in images),
            ignored=None if self.ignored is None else self.ignored[gts],
            masks=None if self.masks is None else self.masks.alone(indices),
        )
