"""What schemes assign on images of a data set, at moments of their training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import convert_image_to_rgb
from omegaconf import DictConfig, ListConfig
from rich.progress import track
from torch import Tensor, nn

from la_det.build import build_model, load_model
from la_det.data.loader import map_record
from la_det.errors import UserError
from la_det.matchers import matcher_at
from la_det.modeling.criteria import Decision
from la_det.modeling.meta_arch import AssignmentDetector
from la_det.structures import Priors
from la_det.visualization.locations import Locations, locations

RANDOM = "random weights"


@dataclass(frozen=True)
class Picture:
    """An image as the network gets it, with its ground truths.

    Attributes:
        name: the record's `image_id`.
        pixels: [H, W, 3] uint8 RGB.
        boxes: [G, 4] XYXY pixels.
        classes: class names of the G ground truths.
        ignored: [G] bool, whether a ground truth is to be ignored.
    """

    name: str
    pixels: np.ndarray
    boxes: np.ndarray
    classes: list[str]
    ignored: np.ndarray


@dataclass(frozen=True)
class Moment:
    """Weights of a scheme (None: random), and a share of the training that is done (None: the checkpoint's)."""

    weights: str | None = None
    progress: float | None = None


@dataclass(frozen=True)
class Panel:
    """What one criterion assigns at one moment.

    Attributes:
        scheme: name of the config.
        criterion: name of the matcher, and of the branch if there are several.
        moment: name of the weights, and the progress.
        levels: names of the levels, finest first.
        priors: priors of the branch for one image; the size of the grid, which differs between images, is not used.
        found: locations of each image.
    """

    scheme: str
    criterion: str
    moment: str
    levels: list[str]
    priors: Priors
    found: list[Locations]


class Scheme:
    """A config's model and training mapper, for looking at assignments.

    Args:
        name: name of the config.
        config: the LazyConfig.
        augmentations: augmentations of a LazyConfig that replace the random ones of the training.
    """

    def __init__(self, name: str, config: DictConfig, augmentations: ListConfig):
        self.name, self.config = name, config
        mapper = copy.deepcopy(config.dataloader.train.mapper)
        mapper.augmentations = augmentations
        mapper.ignored = "mark"  # criteria that do not want ignored boxes leave them out
        self.mapper = instantiate(mapper)

    def picture(self, record: dict, class_names: Sequence[str]) -> Picture:
        """The image of a dataset dict."""
        example = map_record(self.mapper, record)
        truths = example["instances"]
        return Picture(
            name=str(record["image_id"]),
            pixels=convert_image_to_rgb(example["image"].permute(1, 2, 0), self.mapper.image_format).astype(np.uint8),
            boxes=truths.gt_boxes.tensor.numpy(),
            classes=[class_names[c] for c in truths.gt_classes.tolist()],
            ignored=truths.ignored.numpy(),
        )

    def panels(self, records: Sequence[dict], moment: Moment) -> list[Panel]:
        """One panel for each criterion, in the order of the config.

        Raises:
            UserError: the weights do not fit, or the model is no `AssignmentDetector`.
        """
        model, progress = self._load(moment)
        if not isinstance(model, AssignmentDetector):
            raise UserError(f"{self.name}: its model is a {type(model).__name__}, which has no assignments to look at")
        label = f"{RANDOM if moment.weights is None else Path(moment.weights).stem}, progress {progress:.2f}"
        priors: list[Priors] = []
        found: list[list[Locations]] = [[] for _ in model.criteria]
        for record in track(records, f"{self.name}, {label}", transient=True):
            example = map_record(self.mapper, record)
            # The decisions hold all maps of the network, so they are not kept beyond the image.
            decisions = model.assignments([example], progress)
            priors = priors or [decision.predictions.priors for decision in decisions]
            for of_criterion, decision in zip(found, decisions, strict=True):
                of_criterion.append(locations(decision, _numbers(decision, example["instances"].ignored)))
        return [
            Panel(
                scheme=self.name,
                criterion=_criterion_name(model, i, progress),
                moment=label,
                levels=[level.upper() for level in model.in_features],
                priors=priors[i],
                found=found[i],
            )
            for i in range(len(model.criteria))
        ]

    def _load(self, moment: Moment) -> tuple[nn.Module, float]:
        """The model at a moment, and the progress.

        By default, the progress is the checkpoint's, 1 if the checkpoint has no iteration, and 0 for random weights.
        """
        config = copy.deepcopy(self.config)  # needs of converted weights are set for this moment only
        torch.manual_seed(config.train.seed)
        if moment.weights is None:
            model, own = build_model(config).eval(), 0.0
        else:
            model, state = load_model(config, moment.weights)
            length = config.train.max_iter
            own = min((state.get("trainer", state).get("iteration", length) + 1) / length, 1.0)
        return model, own if moment.progress is None else moment.progress


def _criterion_name(model: AssignmentDetector, index: int, progress: float) -> str:
    criterion = model.criteria[index]
    several = len({c.branch for c in model.criteria}) > 1
    matcher = matcher_at(criterion.matcher, progress)
    return type(matcher).__name__ + (f", branch {criterion.branch}" if several else "")


def _numbers(decision: Decision, ignored: Tensor) -> Tensor:
    """Numbers, in the image, of the ground truths that the criterion saw."""
    seen = torch.ones_like(ignored) if len(decision.targets) == len(ignored) else ~ignored
    return seen.nonzero().squeeze(1).to(decision.targets.boxes.device)
