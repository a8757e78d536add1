"""What NMS adds to a detector: its AP with and without NMS, and its duplicates, from one inference pass."""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.structures import Instances
from torch import Tensor, nn

from la_det.modeling.inference import Candidates, DenseInference, to_instances
from la_det.structures import DensePredictions

from .duplicates import DuplicatesEvaluator, Objects

logger = logging.getLogger(__name__)

NMS_THRESHOLD = 0.6
BOX_TASKS = ("bbox", "crowdhuman")  # tasks of evaluators that have an AP of boxes
VARIANTS = {"without_nms": None, "with_nms": NMS_THRESHOLD}  # name -> NMS threshold

Results = Mapping[str, Mapping[str, float]]


class VariantInference:
    """An inference rule that also selects the detections of VARIANTS from the candidates of its last call.

    Attributes:
        names: names of the variants that differ from the rule.
    """

    def __init__(self, rule: DenseInference) -> None:
        self.rule = rule
        self.names = [name for name, threshold in VARIANTS.items() if threshold != rule.nms_threshold]

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        """The detections of the rule."""
        self._candidates = self.rule.candidates(predictions, image_sizes)
        self._image_sizes = image_sizes.tolist()
        return self.rule.select(self._candidates, self.rule.nms_threshold)

    def variants(self, output_sizes: Sequence[tuple[int, int]]) -> dict[str, list[Instances]]:
        """Name -> detections of each variant in `names`, for the images of the last call at these (height, width)."""
        selected = {name: self.rule.select(self._candidates, VARIANTS[name]) for name in self.names}
        return {name: to_instances(found, self._image_sizes, output_sizes) for name, found in selected.items()}


@contextmanager
def variant_inference(model: nn.Module) -> Iterator[VariantInference | None]:
    """Gives the model a `VariantInference` inside the context; yields None for detectors of other projects."""
    rule = getattr(model, "inference", None)
    if not isinstance(rule, DenseInference):
        yield None
        return
    model.inference = VariantInference(rule)
    try:
        yield model.inference
    finally:
        model.inference = rule


class NMSGapEvaluator(DatasetEvaluator):
    """Runs an evaluator on a model's detections, and adds the task `nms_gap` to its results.

    - `AP_without_nms`, `AP_with_nms`: the evaluator's box AP of the best detections among the same candidates, without
      NMS and after class-wise NMS at IoU 0.6; `gap`: what NMS adds.
    - `duplicates_without_nms`: duplicates per image without NMS, see `DuplicatesEvaluator`.
    - `duplicates`: duplicates per image of the model's own detections. The duplicates by size of the object (`_small`,
      `_medium`, `_large`) add up to all duplicates, and so do those by crowding (`_apart`, `_crowded`).

    If the model's candidates are unknown, only `duplicates` are there.
    """

    def __init__(
        self,
        evaluator: DatasetEvaluator,
        objects: Mapping[Hashable, Objects],
        inference: VariantInference | None,
    ) -> None:
        """
        Args:
            evaluator: evaluator of the data set. Each variant gets the evaluator of its method `of_box_ap` or, without
                this method, a shallow copy with the same ground truths. So `reset` must replace what `process` adds
                to, as in Detectron2's evaluators.
            objects: objects of each image of the data set, from `objects_of`.
            inference: the model's inference if it is a `VariantInference`; `process` follows each of its calls.
        """
        self._inference = inference
        self._evaluators = {"own": DatasetEvaluators([_copy(evaluator), DuplicatesEvaluator(objects)])}
        for name in inference.names if inference else ():
            parts = [_of_box_ap(evaluator)]
            if name == "without_nms":
                parts.append(DuplicatesEvaluator(objects))
            self._evaluators[name] = DatasetEvaluators(parts)

    def reset(self) -> None:
        for evaluator in self._evaluators.values():
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self._evaluators["own"].process(inputs, outputs)
        if self._inference is None:
            return
        output_sizes = [output["instances"].image_size for output in outputs]
        for name, found in self._inference.variants(output_sizes).items():
            self._evaluators[name].process(inputs, [{"instances": instances} for instances in found])

    def evaluate(self) -> dict[str, dict[str, float]]:
        results = {}
        # The model's own detections come last, so that files of the evaluators hold these detections.
        for name, evaluator in reversed(self._evaluators.items()):
            logger.info("Detections of the model: %s", name)
            results[name] = evaluator.evaluate()
        duplicates = {name: found.pop("duplicates", None) for name, found in results.items()}
        own = results["own"]
        if _box_ap(own) is None:  # not the main process, or a data set without annotations
            return own
        nms_gap = {}
        if self._inference is not None:
            without_nms, with_nms = (_box_ap(results.get(name, own)) for name in VARIANTS)
            nms_gap = {"AP_without_nms": without_nms, "AP_with_nms": with_nms, "gap": with_nms - without_nms}
            nms_gap["duplicates_without_nms"] = duplicates.get("without_nms", duplicates["own"])["all"]
        nms_gap |= {"duplicates" if k == "all" else f"duplicates_{k}": v for k, v in duplicates["own"].items()}
        return own | {"nms_gap": nms_gap}


def _copy(evaluator: DatasetEvaluator) -> DatasetEvaluator:
    """An evaluator that shares what this one has loaded, but not its results."""
    if isinstance(evaluator, DatasetEvaluators):
        return DatasetEvaluators([_copy(part) for part in evaluator._evaluators])
    return copy.copy(evaluator)


def _of_box_ap(evaluator: DatasetEvaluator) -> DatasetEvaluator:
    """The cheapest evaluator that gives the same box AP."""
    if isinstance(evaluator, DatasetEvaluators):
        return DatasetEvaluators([_of_box_ap(part) for part in evaluator._evaluators])
    return evaluator.of_box_ap() if hasattr(evaluator, "of_box_ap") else _copy(evaluator)


def _box_ap(results: Results) -> float | None:
    return next((results[task]["AP"] for task in BOX_TASKS if task in results), None)
