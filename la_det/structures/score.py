"""The classification probability of a scheme, used alike by its matcher, its loss and its inference."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from la_det.structures.predictions import DensePredictions


@dataclass(frozen=True)
class Score:
    """p = sigma(c), or p = sigma(c) sigma(f) with a per-prior gate f.

    Attributes:
        gate: name of the gating map: "filter" (3DMF), "quality" (the implicit objectness of DW and o2f), or None.
    """

    gate: str | None = None

    def at(self, predictions: DensePredictions, image: Tensor, prior: Tensor, cls: Tensor) -> Tensor:
        """Probabilities [P] of class `cls` at (image, prior)."""
        c, f = self.logits_at(predictions, image, prior, cls)
        return c.sigmoid() if f is None else c.sigmoid() * f.sigmoid()

    def logits_at(
        self, predictions: DensePredictions, image: Tensor, prior: Tensor, cls: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits c [P] of class `cls` at (image, prior), and f [P] (None without a gate)."""
        c = predictions.at("logits", image, prior, cls)
        return c, None if self.gate is None else predictions.at(self.gate, image, prior).squeeze(-1)

    def of_classes(self, predictions: DensePredictions, level: int, image: Tensor, cls: Tensor) -> Tensor:
        """Probabilities of class `cls` [U] of image `image` [U] at all priors of one level: [U, A, h, w]."""
        logits = predictions.maps["logits"][level].unflatten(1, (predictions.priors.per_cell, -1))
        p = logits[image, :, cls].sigmoid()
        return p if self.gate is None else p * predictions.maps[self.gate][level][image].sigmoid()

    def dense(self, predictions: DensePredictions, level: int) -> Tensor:
        """Probabilities of all classes on one level: [N, A, K, h, w]."""
        logits = predictions.maps["logits"][level]
        n, _, h, w = logits.shape
        p = logits.sigmoid().view(n, predictions.priors.per_cell, -1, h, w)
        return p if self.gate is None else p * predictions.maps[self.gate][level].sigmoid().unsqueeze(2)

    def log_probability(self, c: Tensor, f: Tensor | None) -> Tensor:
        """ln p from logits of equal shape, stable for all values."""
        log_p = F.logsigmoid(c)
        return log_p if self.gate is None else log_p + F.logsigmoid(f)

    def log_complement(self, c: Tensor, f: Tensor | None) -> Tensor:
        """ln(1 - p) from logits of equal shape, stable for all values.

        1 - sigma(c) sigma(f) = sigma(-c) + sigma(c) sigma(-f): a sum of positive terms.
        """
        if self.gate is None:
            return F.logsigmoid(-c)
        return (F.logsigmoid(-c)).logaddexp(F.logsigmoid(c) + F.logsigmoid(-f))
