"""Cost of assignment and losses on the scene, with given prediction maps."""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from tabulate import tabulate
from torch import Tensor

from la_det import model_zoo
from la_det.benchmark import dense
from la_det.benchmark.memory import peak_extra_mib
from la_det.benchmark.operations import count_operations
from la_det.benchmark.scene import HEIGHT, WIDTH, Scene, make_scene
from la_det.errors import UserError
from la_det.model_zoo.schemes import get_schemes
from la_det.modeling.criteria import Criterion, loss_terms, reduce_losses
from la_det.references.image import PROGRESS
from la_det.structures import DensePredictions, Targets

# Scheme -> config that is measured. Schemes for crowds are measured on a crowd of one class.
SCHEMES = {name: scheme.config for name, scheme in get_schemes().items()}
CROWD_SCHEMES = {name for name, scheme in get_schemes().items() if scheme.crowd}
DENSE_REPEATS = 2  # with many ground truths, the dense forms take seconds


@dataclass(frozen=True)
class Cost:
    """Medians of one implementation.

    Attributes:
        assignment: milliseconds of the assignment alone.
        total: milliseconds of assignment + losses, forward and backward.
        memory: peak MiB of assignment + losses beyond the memory of the maps.
    """

    assignment: float
    total: float
    memory: float


@dataclass(frozen=True)
class Measurement:
    """One scheme at G ground truths per image.

    Attributes:
        ours: cost in this project.
        dense: cost of the dense form in the same process (`la_det.benchmark.dense`). None if it does not fit into
            memory, and on a GPU, for which it is not written.
        operations: number of operations that assignment + losses, forward and backward, launch on a GPU.
        waits: how often they wait for a result of the GPU (`la_det.benchmark.operations`).
        host_syncs: the waits as CUDA counts them; None on a CPU.
    """

    scheme: str
    num_gts: int
    ours: Cost
    dense: Cost | None
    operations: int
    waits: int
    device: str
    host_syncs: int | None = None


@dataclass(frozen=True)
class Case:
    """Criteria, the predictions that they read, and the targets."""

    criteria: list[Criterion]
    predictions: dict[str, DensePredictions]
    targets: Targets

    def assign(self) -> None:
        predictions, targets = self._step()
        for criterion in self.criteria:
            criterion.assign(predictions[criterion.branch], targets, PROGRESS)

    def train(self) -> Tensor:
        """Forward and backward pass. Returns the sum of the losses."""
        loss = self._loss()
        self._backward(loss)
        return loss.detach()

    def _loss(self) -> Tensor:
        terms = loss_terms(self.criteria, *self._step(), PROGRESS)
        return torch.stack(list(reduce_losses(terms).values())).sum()

    def _step(self) -> tuple[dict[str, DensePredictions], Targets]:
        """Predictions and targets as in a new step, before any map has been read."""
        predictions = {branch: replace(predictions) for branch, predictions in self.predictions.items()}
        return predictions, replace(self.targets)

    def dense_assign(self) -> None:
        for criterion in self.criteria:
            dense.assign(criterion, self.predictions[criterion.branch], self.targets)

    def dense_train(self) -> None:
        self._backward(sum(dense.loss(c, self.predictions[c.branch], self.targets) for c in self.criteria))

    def has_dense(self) -> bool:
        return self.targets.boxes.device.type == "cpu" and all(
            dense.fits(c, self.predictions[c.branch], self.targets) for c in self.criteria
        )

    def _backward(self, loss: Tensor) -> None:
        loss.backward()
        for predictions in self.predictions.values():
            for levels in predictions.maps.values():
                for x in levels:
                    x.grad = None


def measure_in_fresh_process(scheme: str, num_gts: int, device: str, repeats: int, threads: int) -> Measurement:
    """The result of `measure` in a process of its own, so that no case inherits the memory of another."""
    arguments = json.dumps([scheme, num_gts, device, repeats, threads])
    code = "import sys, json; from la_det.benchmark.matching import _child; _child(*json.loads(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"benchmark of {scheme} at G = {num_gts} failed:\n{done.stderr[-2000:]}")
    return measurement_from(json.loads(done.stdout.splitlines()[-1]))


def measurement_from(fields: dict) -> Measurement:
    """The `Measurement` of which `dataclasses.asdict` made these fields."""
    costs = {name: fields[name] and Cost(**fields[name]) for name in ("ours", "dense")}
    return Measurement(**fields | costs)


def _child(scheme: str, num_gts: int, device: str, repeats: int, threads: int) -> None:
    torch.set_num_threads(threads)
    print(json.dumps(asdict(measure(scheme, num_gts, device, repeats))))


def measure(scheme: str, num_gts: int, device: str, repeats: int) -> Measurement:
    """Medians over `repeats` calls after a warm-up on a small scene."""
    scheme_case(scheme, 1, device).train()
    case = scheme_case(scheme, num_gts, device)
    case.train()
    counts = count_operations(case.train)
    return Measurement(
        scheme,
        num_gts,
        _cost(case.assign, case.train, device, repeats),
        _cost(case.dense_assign, case.dense_train, device, DENSE_REPEATS) if case.has_dense() else None,
        counts.operations.total(),
        counts.waits.total(),
        device,
        None if device == "cpu" else count_host_syncs(case.train),
    )


def _cost(assign: Callable[[], None], train: Callable[[], None], device: str, repeats: int) -> Cost:
    memory = peak_extra_mib(train, device)
    return Cost(median_ms(assign, repeats, device), median_ms(train, repeats, device), memory)


def scheme_case(scheme: str, num_gts: int, device: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Case:
    """The case in which a scheme is measured: its scene of two images of (height, width)."""
    num_classes, crowd = (1, True) if scheme in CROWD_SCHEMES else (80, False)
    return build_case(scheme, _scene(num_gts, num_classes, crowd=crowd, size=size), num_classes, device)


_scene = lru_cache(maxsize=4)(make_scene)  # drawing a scene takes longer than most measurements


def build_case(scheme: str, scene: Scene, num_classes: int, device: str) -> Case:
    """A case with criteria and codecs of the scheme's config and maps of the scene."""
    # A training frees blocks of this size all the time. After the first one, glibc keeps freed memory. Otherwise it may
    # give memory back to the system in every step, and the page faults take as long as the step.
    torch.empty(31 << 20, dtype=torch.uint8)
    config = model_zoo.get_config(SCHEMES[scheme]).model
    config.num_classes = num_classes
    predictions = {
        name: _predictions(instantiate(predictor), scene, device)
        for name, predictor in config.head.predictors.items()
        if name != "_target_"
    }
    instances = [
        Instances((HEIGHT, WIDTH), gt_boxes=Boxes(boxes), gt_classes=classes)
        for boxes, classes in zip(scene.boxes, scene.classes, strict=True)
    ]
    targets = Targets.from_instances(instances, torch.device(device))
    return Case(list(instantiate(config.criteria)), predictions, targets)


def _predictions(predictor, scene: Scene, device: str) -> DensePredictions:
    priors = predictor.priors([x.shape[-2:] for x in scene.logits], torch.device(device))
    maps = {"logits": _per_prior(scene.logits, priors.per_cell), "boxes": _boxes(predictor, priors, scene, device)}
    for name in ("quality", "filter"):
        if getattr(predictor, name, None) is not None:
            maps[name] = _per_prior(getattr(scene, name), priors.per_cell)
    return DensePredictions(
        priors,
        predictor.codec,
        {k: [x.to(device).detach().clone().requires_grad_() for x in levels] for k, levels in maps.items()},
    )


def _per_prior(levels: list[Tensor], per_cell: int) -> list[Tensor]:
    return [x.repeat(1, per_cell, 1, 1) for x in levels]


def _boxes(predictor, priors, scene: Scene, device: str) -> list[Tensor]:
    """The scene's boxes, encoded by the branch's codec."""
    levels = []
    for level, ltrb in enumerate(scene.ltrb):
        n, _, h, w = ltrb.shape
        start, end = priors.level_starts[level : level + 2]
        prior = torch.arange(start, end, device=device)
        distances = ltrb.to(device).permute(0, 2, 3, 1).flatten(1, 2).repeat_interleave(priors.per_cell, 1)
        points = priors.points[prior]
        boxes = torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)
        raw = predictor.codec.encode(boxes, priors, prior.expand(n, -1))
        raw = raw.nan_to_num(neginf=-10.0)  # boxes without area have no finite log size
        levels.append(raw.view(n, h, w, -1).permute(0, 3, 1, 2).contiguous())
    return levels


def count_host_syncs(run: Callable[[], object]) -> int:
    """How often the CPU waits for the GPU in a call, for example to copy a number from the GPU."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def median_ms(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median wall time of a call in milliseconds, after a first call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


# Where they are not 10 and 25.
_ASSIGNMENT_TARGETS = {
    # The rules of these look at every location.
    "poto_3dmf_aux": {100: 3.0, 300: 3.0},
    "simota": {100: 3.0, 300: 10.0},
    "simota_square": {100: 3.0, 300: 10.0},
    "tood": {100: 3.0, 300: 10.0},
    "onenet_fcos": {100: 3.0, 300: 10.0},
    "onenet_retinanet": {100: 3.0, 300: 10.0},
    "onenet_min": {100: 3.0, 300: 10.0},
    "paa": {100: 15.0, 300: 30.0},
    "autoassign": {},  # its weights are computed with their gradient
}


def targets(scheme: str, num_gts: int) -> Cost:
    """Target ratios dense / ours of each cost at G ground truths per image; 0: there is no target."""
    if scheme in ("ddq_fcn", "poto_distinct"):  # both forms have the same NMS
        both = {100: 3.0, 300: 5.0}.get(num_gts, 0.0) if scheme == "ddq_fcn" else 0.0
        return Cost(both, both, 0.0)
    assignment = _ASSIGNMENT_TARGETS.get(scheme, {100: 10.0, 300: 25.0}).get(num_gts, 0.0)
    return Cost(assignment, {20: 2.0, 100: 3.0, 300: 10.0}.get(num_gts, 0.0), {100: 2.0, 300: 5.0}.get(num_gts, 0.0))


def table_row(m: Measurement) -> list[str]:
    """Cells of a row: scheme, G; our cost and the ratio dense / ours of assignment, total and memory; the counts."""
    goals, cells = targets(m.scheme, m.num_gts), [m.scheme, str(m.num_gts)]
    for name in ("assignment", "total", "memory"):
        ours = getattr(m.ours, name)
        cells.append(f"{ours:.0f}" if name == "memory" else f"{ours:.1f}")
        cells.append("" if m.dense is None else _ratio(getattr(m.dense, name) / ours, getattr(goals, name)))
    return cells + [str(m.operations), str(m.waits), "" if m.host_syncs is None else str(m.host_syncs)]


def without_empty_columns(rows: list[list[str]], header: list[str]) -> tuple[list[list[str]], list[str]]:
    """Rows and header without columns that are empty in all rows: a GPU has no dense form, a CPU no host syncs."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in rows], [header[i] for i in kept]


def _ratio(ratio: float, goal: float) -> str:
    verdict = f" ({'met' if ratio >= goal else 'MISSED'}, {goal:g}x)" if goal else ""
    return f"{ratio:.1f}x{verdict}"


HEADER = ["scheme", "G"]
for _name in ("assign ms", "total ms", "peak MiB"):
    HEADER += [_name, "dense / ours"]
HEADER += ["ops", "waits", "host syncs"]


def chosen(schemes: Sequence[str] | None, known: Collection[str]) -> list[str]:
    """The schemes of `--schemes`; None: all known ones.

    Raises:
        UserError: there is no such scheme.
    """
    for scheme in schemes or ():
        if scheme not in known:
            raise UserError(f"--schemes {scheme}: no such scheme; choose from {', '.join(sorted(known))}")
    return list(schemes or known)


def run(args: argparse.Namespace) -> None:
    """Measure every scheme at every number of ground truths, as `la-det bench matching` says, and print a table."""
    print(f"torch {torch.__version__}, {args.threads} threads, device {args.device}", file=sys.stderr)
    rows, measurements = [], []
    for scheme in chosen(args.schemes, SCHEMES):
        for num_gts in args.gts:
            print(f"{scheme}, G = {num_gts}", file=sys.stderr)
            measurement = measure_in_fresh_process(scheme, num_gts, args.device, args.repeats, args.threads)
            measurements.append(asdict(measurement))
            rows.append(table_row(measurement))
            if args.json:
                args.json.write_text(json.dumps(measurements, indent=1) + "\n")
    print(tabulate(*without_empty_columns(rows, HEADER), tablefmt="github", disable_numparse=True))
