"""Dense predictions of one branch, kept as the maps the head produced."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from la_det.structures.box_codec import BoxCodec
from la_det.structures.priors import Priors


@dataclass(frozen=True)
class DensePredictions:
    """One branch's output for a batch.

    Attributes:
        priors: the R priors.
        codec: decodes `maps["boxes"]`.
        maps: per name the L maps [N, A * C, h, w], float32, channel = prior of the cell * C + c:
            "logits" (C = K), "boxes" (C = 4, in the codec's units), and where the scheme has them "quality"
            (C = 1: centerness, IoU or objectness logit), "filter" (C = 1: 3DMF's logit) and "controller" (CondInst's
            parameters of an instance's mask head).
        image_maps: per name one map [N, C, h, w] of the finest level's size, float32, that is not of any location:
            "mask_features" and "semantic" (CondInst).
    """

    priors: Priors
    codec: BoxCodec
    maps: dict[str, list[Tensor]]
    image_maps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        return len(self.maps["logits"][0])

    @property
    def num_classes(self) -> int:
        return self.maps["logits"][0].shape[1] // self.priors.per_cell

    def at(self, name: str, image: Tensor, prior: Tensor, channel: Tensor | None = None) -> Tensor:
        """Values of a map at P (image, prior): all its channels [P, C], or one channel each [P].

        Works without a host synchronisation, and gives every level a gradient even if no pair lies on it.
        """
        rows = self.joined(name)  # one copy of the maps: far cheaper than a masked gather on each level
        _, channels, num_priors = rows.shape
        if channel is not None:
            return rows.flatten().index_select(0, (image * channels + channel) * num_priors + prior)
        first = image * (channels * num_priors) + prior
        index = first + num_priors * torch.arange(channels, device=prior.device).unsqueeze(-1)  # [C, P]
        return rows.flatten().index_select(0, index.flatten()).view(channels, -1).T

    def joined(self, name: str) -> Tensor:
        """A map of all levels in the order of the priors: [N, C, R]."""
        a = self.priors.per_cell
        levels = [x.flatten(2).unflatten(1, (a, -1)).permute(0, 2, 3, 1).flatten(2) for x in self.maps[name]]
        return torch.cat(levels, 2)

    def elements(self, name: str, image: Tensor, prior: Tensor, channel: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Per level, the flat index of (image, prior, channel) in the level's map, and whether the prior lies there.

        Where it does not, the index is 0. The three arguments broadcast against each other.
        """
        a = self.priors.per_cell
        indices, masks = [], []
        starts = self.priors.level_starts
        for start, end, elements in zip(starts[:-1], starts[1:], self.maps[name], strict=True):
            _, c, h, w = elements.shape
            here = (prior >= start) & (prior < end)
            cell, k = (prior - start).div(a, rounding_mode="floor"), (prior - start) % a
            index = (image * c + k * (c // a) + channel) * (h * w) + cell
            indices.append(torch.where(here, index, 0))
            masks.append(here.expand_as(index))
        return indices, masks

    def boxes_at(self, image: Tensor, prior: Tensor) -> Tensor:
        """Decoded boxes at P (image, prior): [P, 4] XYXY pixels."""
        return self.codec.decode(self.at("boxes", image, prior), self.priors, prior)

    def boxes(self) -> Tensor:
        """All decoded boxes: [N, R, 4] XYXY pixels."""
        raw = self.joined("boxes").transpose(1, 2)
        return self.codec.decode(raw, self.priors, torch.arange(len(self.priors), device=raw.device))

    def detach(self) -> "DensePredictions":
        """The same maps without gradient."""
        maps = {name: [m.detach() for m in levels] for name, levels in self.maps.items()}
        image_maps = {name: m.detach() for name, m in self.image_maps.items()}
        return DensePredictions(self.priors, self.codec, maps, image_maps)

    def of_images(self, images: Tensor) -> "DensePredictions":
        """The predictions of these images [n] as a batch; an image may be there several times."""
        maps = {name: [m.index_select(0, images) for m in levels] for name, levels in self.maps.items()}
        image_maps = {name: m.index_select(0, images) for name, m in self.image_maps.items()}
        return DensePredictions(self.priors, self.codec, maps, image_maps)
