"""Comparison of la_det with the official implementations' numbers.

A golden file holds inputs, and outputs that an official implementation computed. Its parent folder names the method.
Each method has one module that runs la_det's criteria, heads and inference, built from the project's configs, on the
inputs. A quantity that this module does not look at counts as not implemented.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor

from la_det.modeling.criteria import LossTerm
from la_det.structures import DensePredictions, Targets

# The official code ran on a CPU. A GPU rounds differently: the largest error on an H200 was 2.1 times the tolerance.
GPU_TOLERANCE = 4


@dataclass(frozen=True)
class Comparison:
    """One quantity of a golden file.

    Attributes:
        key: name of the array in the file.
        error: the worst error, measured as the tolerance is; infinite for a wrong shape.
        tolerance: largest allowed error.
    """

    key: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        # A NaN is not within any tolerance.
        return self.error <= self.tolerance


class NotBuilt(LookupError):
    """The subject of a golden file is something that la_det does not have."""


class GoldenFile:
    """The arrays of one file. It remembers which arrays were read, and the results of comparisons.

    Args:
        path: an .npz file.
        device: device of the tensors.

    Raises:
        ValueError: the file cannot be read.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu"):
        self.path = Path(path)
        self.device = torch.device(device)
        try:
            with np.load(self.path, allow_pickle=False) as data:
                self._arrays = dict(data)
        except Exception as error:
            raise ValueError(f"{path}: not a readable .npz file ({error})") from error
        self._prefix = ""
        self._read: set[str] = set()
        self.comparisons: list[Comparison] = []

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def slack(self) -> float:
        """Factor of all tolerances."""
        return 1 if self.device.type == "cpu" else GPU_TOLERANCE

    def part(self, prefix: str) -> "GoldenFile":
        """The same file, whose keys are read with the prefix where there are such: one of several processes in it."""
        part = copy.copy(self)
        part._prefix = prefix
        return part

    def _full(self, key: str) -> str:
        return self._prefix + key if self._prefix + key in self._arrays else key

    def __contains__(self, key: str) -> bool:
        return self._full(key) in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def array(self, key: str) -> np.ndarray:
        """An array as it is in the file."""
        self._read.add(self._full(key))
        return self._arrays[self._full(key)]

    def tensor(self, key: str) -> Tensor:
        """An array as a tensor."""
        return torch.from_numpy(np.array(self.array(key))).to(self.device)

    def number(self, key: str) -> float | int:
        """A 0-d array as a Python number."""
        return self.array(key).item()

    def levels(self, prefix: str) -> list[Tensor]:
        """The maps `prefix_l0`, `prefix_l1`, ... of all levels."""
        count = sum(f"{prefix}_l{level}" in self for level in range(16))
        if count == 0:
            raise KeyError(f"{self.path}: no maps {prefix}_l0, {prefix}_l1, ...")
        return [self.tensor(f"{prefix}_l{level}") for level in range(count)]

    def variants(self, suffix: str) -> list[str]:
        """Prefixes V of the keys `V.suffix`, in file order."""
        return [key.removesuffix(f".{suffix}") for key in self if key.endswith(f".{suffix}")]

    def ignore(self, *keys: str) -> None:
        """Marks inputs and notes that a check does not need as read."""
        self._read.update(map(self._full, keys))

    def unread(self) -> list[str]:
        """Keys that no check looked at."""
        return [key for key in self if key not in self._read]

    def exact(self, key: str, actual: Tensor | int | float) -> None:
        """Compares entries, which must be equal; the error is the number of different entries."""
        self._compare(key, actual, 0.0, lambda a, e: float((a != e).sum()))

    def close(self, key: str, actual: Tensor | float, *, atol: float = 0.0, rtol: float = 0.0) -> None:
        """Compares by |actual - expected| <= atol (absolute error) or <= rtol |expected| (relative error)."""
        if atol:
            self._compare(key, actual, atol, lambda a, e: _largest((a - e).abs()))
        else:
            self._compare(key, actual, rtol, lambda a, e: _largest((a - e).abs() / e.abs().clamp(min=1e-12)))

    def close_to_max(self, key: str, actual: Tensor, tolerance: float, *, zero_atol: float = 1e-7) -> None:
        """Compares by the largest error relative to the largest expected entry; by `zero_atol` if all entries are 0."""

        def error(a: Tensor, e: Tensor) -> float:
            largest = _largest(e.abs())
            return _largest((a - e).abs()) / largest if largest else _largest(a.abs()) / zero_atol * tolerance

        self._compare(key, actual, tolerance, error)

    def record(self, key: str, error: float, tolerance: float) -> None:
        """Records a comparison that the caller has made."""
        self._read.add(self._full(key))
        self.comparisons.append(Comparison(self._full(key), float(error), self.slack * tolerance))

    def _compare(self, key: str, actual, tolerance: float, measure) -> None:
        expected = self.tensor(key).cpu().double()
        actual = torch.as_tensor(actual).detach().cpu().double()
        error = measure(actual, expected) if actual.shape == expected.shape else float("inf")
        self.record(key, error, tolerance)


def read_predictions(
    golden: GoldenFile, config: DictConfig, names: Mapping[str, str], prefix: str = ""
) -> DensePredictions:
    """A branch's maps, as leaves that collect gradients.

    Args:
        golden: the file.
        config: of the branch's last layers, which have its priors and its codec.
        names: name of a map in the file -> la_det's; maps that the file does not have are left out.
        prefix: of the names in the file.
    """
    found = {name: golden.levels(prefix + key) for key, name in names.items() if f"{prefix}{key}_l0" in golden}
    maps = {name: [x.requires_grad_() for x in levels] for name, levels in found.items()}
    predictor = instantiate(config)
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], golden.device)
    return DensePredictions(priors, predictor.codec, maps)


def read_targets(golden: GoldenFile) -> Targets:
    """The ground truths of all images."""
    instances = []
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        fields = {"gt_boxes": Boxes(golden.tensor(f"gt_boxes_{i}")), "gt_classes": golden.tensor(f"gt_classes_{i}")}
        instances.append(Instances(tuple(size), **fields))
    return Targets.from_instances(instances)


def average_normalisers(of_ranks: Sequence[dict[str, LossTerm]]) -> list[dict[str, LossTerm]]:
    """The terms of simulated processes, with normalisers averaged as the processes would have averaged them."""
    averages = {name: torch.stack([t[name].normaliser.float() for t in of_ranks]).mean() for name in of_ranks[0]}
    return [
        {
            name: replace(term, normaliser=averages[name]) if term.scope == "world" else term
            for name, term in terms.items()
        }
        for terms in of_ranks
    ]


def terms_of_process(
    golden: GoldenFile, terms: dict[str, LossTerm], terms_of: Callable[[GoldenFile], dict[str, LossTerm]]
) -> dict[str, LossTerm]:
    """The terms with averages over all processes; the files of the other ranks must lie beside this one.

    Args:
        golden: of one process, `*rank<number>*`, or of a single one.
        terms: of the file, before averaging.
        terms_of: makes those of another file.
    """
    if "world_size" not in golden:
        return terms
    rank, world_size = golden.number("rank"), golden.number("world_size")
    of_ranks = [terms]
    for other in set(range(world_size)) - {rank}:
        path = golden.path.with_name(golden.path.name.replace(f"rank{rank}", f"rank{other}"))
        of_ranks.append(terms_of(GoldenFile(path, golden.device)))
    return average_normalisers(of_ranks)[0]


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def compare_detections(
    golden: GoldenFile,
    keys: tuple[str, str, str],
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    *,
    box_atol: float,
    score_atol: float,
) -> Tensor:
    """Compares detections by descending score. Detections whose scores differ by at most `score_atol` may swap places.

    Args:
        keys: keys of the boxes [D, 4], scores [D] and classes [D] in the file.
        boxes, scores, classes: la_det's detections.

    Returns:
        Indices of la_det's detections in the file's order.
    """
    order = torch.arange(len(scores))
    expected_boxes, expected_scores, expected_classes = (golden.tensor(key) for key in keys)
    if boxes.shape == expected_boxes.shape and len(scores):
        near = golden.slack * score_atol
        order = pair_up(expected_boxes, expected_scores, expected_classes, boxes, scores, classes, near)
        boxes, scores, classes = boxes[order], scores[order], classes[order]
    golden.close(keys[0], boxes, atol=box_atol)
    golden.close(keys[1], scores, atol=score_atol)
    golden.exact(keys[2], classes)
    return order


def pair_up(e_boxes, e_scores, e_classes, boxes, scores, classes, score_atol: float) -> Tensor:
    """Index, for each expected detection, of the actual detection of its class and score with the nearest box.

    Each actual detection is used once.
    """
    from scipy.optimize import linear_sum_assignment

    cost = (e_boxes[:, None].double() - boxes[None].double()).abs().amax(-1)
    near = (e_scores[:, None] - scores[None]).abs() <= 2 * score_atol
    cost = cost + 1e6 * (~near | (e_classes[:, None] != classes[None]))
    return torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1]).to(boxes.device)
