"""The locations of a batch that take part in assignment and losses, where not all do."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """Some priors of each image, in rows of one length.

    Which entries of a row are queries is data, not size, so that no GPU is waited for.

    Attributes:
        prior: [N, Q] int64, all different within a row.
        boxes: [N, Q, 4] predicted, XYXY pixels, without gradient.
        valid: [N, Q] bool, the entries that are queries.
        num_priors: R.
    """

    prior: Tensor
    boxes: Tensor
    valid: Tensor
    num_priors: int

    @cached_property
    def image(self) -> Tensor:
        """[N, Q] int64."""
        return torch.arange(self.prior.shape[0], device=self.prior.device).unsqueeze(1).expand_as(self.prior)

    @cached_property
    def entries(self) -> Tensor:
        """[N, R] the entry of each prior among all N Q, -1 for priors that are no queries."""
        every = torch.arange(self.prior.numel(), device=self.prior.device).view_as(self.prior)
        none = self.prior.new_full((self.prior.shape[0], self.num_priors), -1)
        return none.scatter_(1, self.prior, every.masked_fill(~self.valid, -1))

    @property
    def mask(self) -> Tensor:
        """[N, R] bool, the priors that are queries."""
        return self.entries >= 0

    def at(self, image: Tensor, prior: Tensor) -> Tensor:
        """The entries of P (image, prior), see `entries`."""
        return self.entries.flatten().index_select(0, image * self.num_priors + prior)

    def of_images(self, images: Tensor) -> "Queries":
        """The queries of the images in a mask [N]; the others have none."""
        return replace(self, valid=self.valid & images.unsqueeze(1))

    def without(self, image: Tensor, prior: Tensor) -> "Queries":
        """All but those at D (image, prior)."""
        kept = self.valid.flatten().index_fill(0, self.at(image, prior), False)
        return replace(self, valid=kept.view_as(self.valid))
