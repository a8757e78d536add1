"""The locations of a batch that take part in assignment and losses, where not all do."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """Some priors of each image, in rows of one length; which entries are queries is data, so that no GPU is waited for.

    Attributes:
        prior: [N, Q] int64, all different within a row.
        valid: [N, Q] bool, the entries that are queries.
        num_priors: R.
    """

    prior: Tensor
    valid: Tensor
    num_priors: int

    @cached_property
    def image(self) -> Tensor:
        """[N, Q] int64."""
        return torch.arange(self.prior.shape[0], device=self.prior.device).unsqueeze(1).expand_as(self.prior)

    @cached_property
    def mask(self) -> Tensor:
        """[N, R] bool, the priors that are queries."""
        mask = self.valid.new_zeros(self.prior.shape[0], self.num_priors)
        return mask.scatter_(1, self.prior, self.valid)

    def at(self, image: Tensor, prior: Tensor) -> Tensor:
        """Which of P (image, prior) are queries: [P] bool."""
        return self.mask.flatten().index_select(0, image * self.num_priors + prior)

    def of_images(self, images: Tensor) -> "Queries":
        """The queries of the images in a mask [N]; the others have none."""
        return replace(self, valid=self.valid & images.unsqueeze(1))

    def without(self, image: Tensor, prior: Tensor) -> "Queries":
        """All but those at D (image, prior)."""
        mask = self.mask.flatten().index_fill(0, image * self.num_priors + prior, False)
        return replace(self, valid=mask.view_as(self.mask).gather(1, self.prior) & self.valid)
