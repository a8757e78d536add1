"""What label assignment does during a training, observed on a fixed batch of training images."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor

from la_det.engine.trainer import unwrap
from la_det.matchers import matcher_at
from la_det.modeling.criteria import Criterion, Decision
from la_det.modeling.meta_arch import AssignmentDetector
from la_det.structures import Pairs

logger = logging.getLogger(__name__)

OBJECTS_AT_A_TIME = 16  # each of them takes a copy of its image's predictions


class AssignmentDiagnostics(HookBase):
    """Looks, every `period` iterations, at what the criteria of an `AssignmentDetector` assign to a fixed batch.

    It puts `assignment/<branch>/<matcher>/<name>` into the storage. The names are `positives`, `without_positive`,
    `conflicts`, `switched`, and all but the second with the suffix `_<level>` (see `diagnose`).

    For a look, the network runs in evaluation mode, so the training goes on as if there had been no look. Iterations
    without a look run the same code as without this hook.
    """

    def __init__(self, batch: list[dict], period: int) -> None:
        """
        Args:
            batch: training examples, the same at each look. Empty in all processes but the main one.
            period: iterations from look to look.
        """
        self.batch = batch
        self.period = period
        self._batch_id = _fingerprint(batch)
        self._last: dict[str, Tensor] = {}

    def after_step(self) -> None:
        if not self.batch or (self.trainer.iter + 1) % self.period:
            return
        model = unwrap(self.trainer.model).eval()
        try:
            self._look(model)
        except FloatingPointError as error:  # the next step stops the training if the weights are to blame
            logger.warning("Iteration %d: no look at the assignment: %s", self.trainer.iter, error)
        finally:
            model.train()

    @torch.no_grad()
    def _look(self, model: AssignmentDetector) -> None:
        trainer, progress = self.trainer, model.progress()
        with torch.autocast(trainer.device_type, trainer.amp_dtype, enabled=trainer.amp_dtype is not None):
            decisions = model.assignments(self.batch, progress)
        for criterion, decision in zip(model.criteria, decisions, strict=True):
            name = f"assignment/{criterion.branch}/{type(matcher_at(criterion.matcher, progress)).__name__}"
            values = diagnose(criterion, decision, model.in_features, progress, self._last.get(name))
            self._last[name] = pair_keys(decision).cpu()
            trainer.storage.put_scalars(**{f"{name}/{k}": v for k, v in values.items()}, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        """The last look, for a resumed run."""
        return {"batch": self._batch_id, "pairs": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the last look. A look at another batch, for instance with more processes, is forgotten."""
        self._last = state_dict["pairs"] if state_dict.get("batch") == self._batch_id else {}


def _fingerprint(batch: list[dict]) -> str:
    """Equal for batches with the same images and ground truths."""
    digest = hashlib.sha256()
    for example in batch:
        truths = example["instances"]
        for x in (example["image"], truths.gt_boxes.tensor, truths.gt_classes):
            digest.update(str(tuple(x.shape)).encode() + x.numpy().tobytes())
    return digest.hexdigest()


def diagnose(
    criterion: Criterion,
    decision: Decision,
    level_names: Sequence[str],
    progress: float,
    last: Tensor | None = None,
) -> dict[str, float]:
    """Numbers that describe an assignment. A share of nothing is left out.

    - `positives`: pairs of the assignment per ground truth, whatever their weight.
    - `without_positive`: share of ground truths without a pair.
    - `conflicts`: share of wanted (location, ground truth) pairs whose location another ground truth of the image also
      wants. A ground truth wants the pairs that it would get if it were alone in the image.
    - `switched`: share of the last look's pairs that are gone.

    All but `without_positive` also exist for each level, as `<name>_<level>`, about the pairs on this level.

    Args:
        criterion: the criterion that made the decision.
        decision: the criterion's decision about a batch.
        level_names: names of the L levels.
        progress: share of the training that is done, for the matcher.
        last: [P'] the pairs of the last look, from `pair_keys`.
    """
    targets, pairs, priors = decision.targets, decision.assignment.pairs, decision.predictions.priors
    objects = targets.objects
    if not len(objects):
        return {}

    def count(prior: Tensor) -> Tensor:
        """[1 + L] number of priors, over all levels and on each level."""
        counts = torch.bincount(priors.levels[prior], minlength=len(level_names)).double()
        return torch.cat([counts.sum(0, keepdim=True), counts])

    wanted = wanted_pairs(criterion, decision, objects, progress)
    parts = {
        "positives": count(pairs.prior) / len(objects),
        "conflicts": count(wanted.prior[_share_location(wanted, len(priors))]) / count(wanted.prior),
    }
    if last is not None:
        last = last.to(pairs.gt.device)
        gone = last[~torch.isin(last, pair_keys(decision))]
        parts["switched"] = count(_prior(gone, decision)) / count(_prior(last, decision))
    suffixes = ("", *(f"_{name}" for name in level_names))
    values = {
        name + suffix: value
        for name, part in parts.items()
        for suffix, value in zip(suffixes, part.tolist(), strict=True)
    }
    values["without_positive"] = 1 - len(pairs.gt.unique()) / len(objects)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def pair_keys(decision: Decision) -> Tensor:
    """[P] one number for each pair; two looks at the same images give equal numbers for equal pairs."""
    pairs = decision.assignment.pairs
    return pairs.location(len(decision.predictions.priors)) * len(decision.targets) + pairs.gt


def _prior(keys: Tensor, decision: Decision) -> Tensor:
    return keys.div(len(decision.targets), rounding_mode="floor") % len(decision.predictions.priors)


def wanted_pairs(criterion: Criterion, decision: Decision, objects: Tensor, progress: float) -> Pairs:
    """The pairs that each of the `objects` [g], indices of ground truths, would get if it were alone in its image."""
    found = []
    for gts in objects.split(OBJECTS_AT_A_TIME):
        images = decision.targets.image[gts]
        predictions, targets = decision.predictions.of_images(images), decision.targets.alone(gts)
        pairs = criterion.assign(predictions, targets, progress).assignment.pairs
        found.append(torch.stack([images[pairs.image], pairs.prior, gts[pairs.gt]]))
    return Pairs(*torch.cat(found, 1))


def _share_location(pairs: Pairs, num_priors: int) -> Tensor:
    """[P] bool, whether another pair has the same location."""
    _, location, counts = pairs.location(num_priors).unique(return_inverse=True, return_counts=True)
    return counts[location] > 1
