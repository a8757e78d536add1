"""What label assignment does while a model trains, seen on a fixed batch of training images."""

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

OBJECTS_AT_A_TIME = 16  # each with a copy of its image's predictions


class AssignmentDiagnostics(HookBase):
    """Every `period` iterations, looks at what the criteria of an `AssignmentDetector` assign to a fixed batch.

    It puts `assignment/<branch>/<matcher>/<name>` into the storage, with these names (see `diagnose`): `positives`,
    `without_positive`, `conflicts`, `switched`, and those with the suffix `_<level>` for the parts on each level.

    The network looks in evaluation mode, so that training goes on as if nothing had happened, and iterations without a
    look are not touched at all.
    """

    def __init__(self, batch: list[dict], period: int) -> None:
        """
        Args:
            batch: training examples, the same at each look; empty in processes other than the main one.
            period: in iterations.
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
        """So that a resumed run knows the last look."""
        return {"batch": self._batch_id, "pairs": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forgets a look at another batch, for instance of a run with more processes: its pairs mean nothing here."""
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
    """Numbers that describe an assignment; without those that have nothing to be a share of.

    - `positives`: per ground truth, all pairs of the assignment, whatever their weight.
    - `without_positive`: share of ground truths that have none.
    - `conflicts`: share of wanted (location, ground truth) pairs whose location another ground truth of the image wants
      too. A ground truth wants what it would get if it were alone in the image.
    - `switched`: share of the last look's pairs that are none any more.

    Of all but `without_positive` there is one for each level, `<name>_<level>`: the positives on it, and shares of the
    pairs on it.

    Args:
        criterion: whose assignment it is.
        decision: what it decided about a batch.
        level_names: of the L levels.
        progress: share of the training that is done, for the matcher.
        last: [P'] the pairs of the last look, from `pair_keys`.
    """
    targets, pairs, priors = decision.targets, decision.assignment.pairs, decision.predictions.priors
    objects = targets.objects
    if not len(objects):
        return {}

    def count(prior: Tensor) -> Tensor:
        """[1 + L]: how many there are, and how many on each level."""
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
    """[P] one number for each pair, by which the pairs of looks at the same images can be compared."""
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
    """[P] bool: the pair's location is in another pair, too."""
    _, location, counts = pairs.location(num_priors).unique(return_inverse=True, return_counts=True)
    return counts[location] > 1
