"""Dense predictions of one branch, kept as the maps the head produced."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from la_det.structures.box_codec import BoxCodec
from la_det.structures.no_wait import recording
from la_det.structures.priors import Priors
from la_det.structures.queries import Queries


@dataclass(frozen=True)
class DensePredictions:
    """One branch's output for a batch.

    Attributes:
        priors: the R priors.
        codec: decodes `maps["boxes"]`.
        maps: name -> L maps [N, A C, h, w], float32; channel c of a cell's a-th prior is a C + c. Never change a map
            after its first read.
            "logits": class logits (C = K).
            "boxes": box channels in the codec's units (C = 4).
            "quality", optional: logit of centerness, IoU or objectness (C = 1).
            "filter", optional: logit of 3DMF (C = 1).
            "controller", optional: parameters of an instance's mask head (CondInst).
        image_maps: name -> one map [N, C, h, w] of the image, not of its locations, float32, of the finest level's
            size: "mask_features" and "semantic" (CondInst).
        queries: the locations that a matcher may choose. None: all.
    """

    priors: Priors
    codec: BoxCodec
    maps: dict[str, list[Tensor]]
    image_maps: dict[str, Tensor] = field(default_factory=dict)
    queries: Queries | None = None
    _flat: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_images(self) -> int:
        return len(next(iter(self.maps.values()))[0])

    @property
    def num_classes(self) -> int:
        return self.maps["logits"][0].shape[1] // self.priors.per_cell

    def flat(self, name: str) -> Tensor:
        """The map `name` of all levels in one row, made once; `index` gives the position of a value.

        Matchers read the row without gradient, losses read the same row with gradient.
        """
        if name not in self._flat:
            with torch.enable_grad():
                # While a graph is recorded, sizes may be symbols: `Priors.layout` cannot make a table of symbols.
                levels = [self.joined(name)] if recording() else self.maps[name]
                self._flat[name] = torch.cat([x.reshape(-1) for x in levels])
        return self._flat[name]

    def index(self, name: str, image: Tensor, prior: Tensor, channel: Tensor | None = None) -> Tensor:
        """Positions in `flat(name)` of (image, prior, channel), which broadcast against each other.

        Without `channel`: the position of each prior's first channel.
        """
        channels = self.maps[name][0].shape[1]
        if recording():
            of_prior = image * (channels // self.priors.per_cell) + (0 if channel is None else channel)
            return of_prior * self.priors.points.shape[0] + prior  # not len(): in a recorded graph R is a symbol
        table = self.priors.layout(self.num_images, channels)
        first, step = table.index_select(0, prior.flatten()).view(*prior.shape, 2).unbind(-1)
        offset = image if channels == 1 else image * channels
        return torch.addcmul(first, step, offset if channel is None else offset + channel)

    def at(self, name: str, image: Tensor, prior: Tensor, channel: Tensor | None = None) -> Tensor:
        """Values of a map at P (image, prior): all channels [P, C], or one channel of each [P] if `channel` is given.

        There is no host synchronisation, and every level gets a gradient, also a level without any pair.
        """
        if channel is not None:
            return self.flat(name).index_select(0, self.index(name, image, prior, channel))
        c = self.maps[name][0].shape[1] // self.priors.per_cell
        every = torch.arange(c, device=prior.device) if c > 1 else None
        index = self.index(name, image.unsqueeze(1), prior.unsqueeze(1), every)  # [P, C]
        return self.flat(name).index_select(0, index.flatten()).view(-1, c)

    def joined(self, name: str) -> Tensor:
        """The map `name` of all levels in the order of the priors: [N, C, R], a copy."""
        a = self.priors.per_cell
        levels = [x.flatten(2).unflatten(1, (a, -1)).permute(0, 2, 3, 1).flatten(2) for x in self.maps[name]]
        return torch.cat(levels, 2)

    def boxes_at(self, image: Tensor, prior: Tensor) -> Tensor:
        """Decoded boxes at P (image, prior): [P, 4] XYXY pixels."""
        return self.codec.decode(self.at("boxes", image, prior), self.priors, prior)

    def boxes(self) -> Tensor:
        """All decoded boxes: [N, R, 4] XYXY pixels."""
        return self.codec.decode(self.joined("boxes").transpose(1, 2), self.priors, None)

    def detach(self, queries: Queries | None = None) -> "DensePredictions":
        """The same maps without gradient, and if given with queries."""
        maps = {name: [m.detach() for m in levels] for name, levels in self.maps.items()}
        image_maps = {name: m.detach() for name, m in self.image_maps.items()}
        return _Detached(self.priors, self.codec, maps, image_maps, queries, attached=self)

    def of_images(self, images: Tensor) -> "DensePredictions":
        """The predictions of these images [n] as a batch; an image may occur several times."""
        maps = {name: [m.index_select(0, images) for m in levels] for name, levels in self.maps.items()}
        image_maps = {name: m.index_select(0, images) for name, m in self.image_maps.items()}
        return DensePredictions(self.priors, self.codec, maps, image_maps)


@dataclass(frozen=True)
class _Detached(DensePredictions):
    attached: DensePredictions | None = None

    def flat(self, name: str) -> Tensor:
        return self.attached.flat(name).detach()
