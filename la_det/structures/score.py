"""The classification probability of a scheme, used alike by its matcher, its loss and its inference."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.structures.predictions import DensePredictions


@dataclass(frozen=True)
class Score:
    """p = sigma(c), or with a per-prior gate f p = sigma(c) sigma(f), or the square root of that.

    Attributes:
        gate: name of the map of f.
            None: there is no gate.
            "filter": 3DMF.
            "quality": the implicit objectness of DW and o2f, TOOD's alignment, or OTA's IoU.
        square_root: whether p is the square root of sigma(c) sigma(f) (TOOD, OTA, SimOTA).
    """

    gate: str | None = None
    square_root: bool = False

    def at(self, predictions: DensePredictions, image: Tensor, prior: Tensor, cls: Tensor) -> Tensor:
        """Probabilities [P] of class `cls` at (image, prior); 0 where that is no query."""
        c, f = self.logits_at(predictions, image, prior, cls)
        p = c.sigmoid() if f is None else self.gated(c.sigmoid(), f.sigmoid())
        return p if predictions.queries is None else p * (predictions.queries.at(image, prior) >= 0)

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
        return p if self.gate is None else self.gated(p, predictions.maps[self.gate][level][image].sigmoid())

    def dense(self, predictions: DensePredictions, level: int) -> Tensor:
        """Probabilities of all classes on one level: [N, A, K, h, w]."""
        logits = predictions.maps["logits"][level]
        n, _, h, w = logits.shape
        p = logits.sigmoid().view(n, predictions.priors.per_cell, -1, h, w)
        return p if self.gate is None else self.gated(p, predictions.maps[self.gate][level].sigmoid().unsqueeze(2))

    def largest(self, predictions: DensePredictions) -> Tensor:
        """The largest of all classes' probabilities at all priors: [N, R]."""
        a = predictions.priors.per_cell
        levels = (x.unflatten(1, (a, -1)).amax(2) for x in predictions.maps["logits"])  # [N, A, h, w]
        p = torch.cat([x.flatten(2).transpose(1, 2).flatten(1) for x in levels], 1).sigmoid()
        return p if self.gate is None else self.gated(p, predictions.joined(self.gate).squeeze(1).sigmoid())

    def gated(self, class_p: Tensor, gate: Tensor) -> Tensor:
        """p from sigma(c) and sigma(f), which broadcast."""
        p = class_p * gate
        return p.sqrt() if self.square_root else p

    def log_probability(self, c: Tensor, f: Tensor | None) -> Tensor:
        """ln p from logits whose shapes broadcast, stable for all values."""
        if self.gate is None:
            return F.logsigmoid(c)
        log_p = F.logsigmoid(c) + F.logsigmoid(f)
        return log_p / 2 if self.square_root else log_p

    def logs(self, c: Tensor, f: Tensor | None) -> tuple[Tensor, Tensor]:
        """ln p and ln(1 - p) from logits whose shapes broadcast, stable for all values.

        1 - sigma(c) sigma(f) = sigma(-c) + sigma(c) sigma(-f) is a sum of positive terms, and 1 - sqrt(P) is
        (1 - P) / (1 + sqrt(P)).
        """
        if self.gate is None:
            return F.logsigmoid(c), F.logsigmoid(-c)
        log_class, log_gate = F.logsigmoid(c), F.logsigmoid(f)
        log_p, log_complement = log_class + log_gate, F.logsigmoid(-c).logaddexp(log_class + F.logsigmoid(-f))
        if not self.square_root:
            return log_p, log_complement
        log_p = log_p / 2
        return log_p, log_complement - log_p.exp().log1p()
