"""Comparing la_det with the official implementations' numbers.

A golden file holds inputs and outputs that an official implementation computed. Its parent folder names the method,
and each method has one module here that runs la_det's own criteria, heads and inference, built from the project's
configs, on the inputs. What it does not look at counts as not implemented.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from la_det.modeling.criteria import LossTerm
from la_det.structures import Targets

# The official code ran on a CPU; a GPU rounds differently: the largest error on an H200 was 2.1 times its tolerance.
GPU_TOLERANCE = 4


@dataclass(frozen=True)
class Comparison:
    """One quantity of a golden file.

    Attributes:
        key: name of the array in the file.
        error: the worst error in the tolerance's own measure; infinite for a wrong shape.
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
    """A golden file is of something that la_det does not have."""


class GoldenFile:
    """The arrays of one file, which remembers what was read and how comparisons ended.

    Args:
        path: an .npz file.
        device: of its tensors.

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
        self._read: set[str] = set()
        self.comparisons: list[Comparison] = []

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def slack(self) -> float:
        """By what tolerances are multiplied."""
        return 1 if self.device.type == "cpu" else GPU_TOLERANCE

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def array(self, key: str) -> np.ndarray:
        """An array as it is in the file."""
        self._read.add(key)
        return self._arrays[key]

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
        """Marks inputs and notes that this check has no use for."""
        self._read.update(keys)

    def unread(self) -> list[str]:
        """Keys that no check looked at."""
        return [key for key in self if key not in self._read]

    def exact(self, key: str, actual: Tensor | int | float) -> None:
        """Every entry must be equal; the error is the number of different entries."""
        self._compare(key, actual, 0.0, lambda a, e: float((a != e).sum()))

    def close(self, key: str, actual: Tensor | float, *, atol: float = 0.0, rtol: float = 0.0) -> None:
        """|actual - expected| <= atol + rtol |expected|, with either atol or rtol: absolute or relative error."""
        if atol:
            self._compare(key, actual, atol, lambda a, e: _largest((a - e).abs()))
        else:
            self._compare(key, actual, rtol, lambda a, e: _largest((a - e).abs() / e.abs().clamp(min=1e-12)))

    def close_to_max(self, key: str, actual: Tensor, tolerance: float, *, zero_atol: float = 1e-7) -> None:
        """Largest error relative to the largest expected entry; where all are 0, `zero_atol` absolute."""

        def error(a: Tensor, e: Tensor) -> float:
            largest = _largest(e.abs())
            return _largest((a - e).abs()) / largest if largest else _largest(a.abs()) / zero_atol * tolerance

        self._compare(key, actual, tolerance, error)

    def record(self, key: str, error: float, tolerance: float) -> None:
        """A comparison that the caller made itself."""
        self._read.add(key)
        self.comparisons.append(Comparison(key, float(error), self.slack * tolerance))

    def _compare(self, key: str, actual, tolerance: float, measure) -> None:
        expected = self.tensor(key).cpu().double()
        actual = torch.as_tensor(actual).detach().cpu().double()
        error = measure(actual, expected) if actual.shape == expected.shape else float("inf")
        self.record(key, error, tolerance)


def read_targets(golden: GoldenFile) -> Targets:
    """The ground truths of all images."""
    instances = []
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        fields = {"gt_boxes": Boxes(golden.tensor(f"gt_boxes_{i}")), "gt_classes": golden.tensor(f"gt_classes_{i}")}
        instances.append(Instances(tuple(size), **fields))
    return Targets.from_instances(instances)


def average_normalisers(of_ranks: Sequence[dict[str, LossTerm]]) -> list[dict[str, LossTerm]]:
    """The terms of simulated processes with the averages that the processes would have made together."""
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
    """Compares detections by descending score; those whose scores are closer than `score_atol` may swap places.

    Args:
        keys: of the boxes [D, 4], scores [D] and classes [D] in the file.
        boxes, scores, classes: la_det's.

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
    """For each expected detection the actual one of its class and score with the nearest box, without repeats."""
    from scipy.optimize import linear_sum_assignment

    cost = (e_boxes[:, None].double() - boxes[None].double()).abs().amax(-1)
    near = (e_scores[:, None] - scores[None]).abs() <= 2 * score_atol
    cost = cost + 1e6 * (~near | (e_classes[:, None] != classes[None]))
    return torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1]).to(boxes.device)
