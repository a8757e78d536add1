"""This project's assignment and losses beside those of the official code, in one process, call by call in turn.

The official code is the user's checkout of DeFCN or DW. It runs unchanged on the scene of scene.py, with given
prediction maps. `la_det.benchmark.stand_ins` replaces its imports from its framework.
"""

import argparse
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from tabulate import tabulate
from torch import Tensor, nn

from la_det.benchmark import stand_ins
from la_det.benchmark.matching import Case, chosen, scheme_case
from la_det.benchmark.memory import peak_allocated_mib
from la_det.benchmark.scene import HEIGHT, STRIDES, WIDTH, Scene, make_scene
from la_det.errors import UserError

# Scheme -> folder in DeFCN's playground/detection/coco
DEFCN = {
    "center": "center.res50.fpn.coco.800size.3x_ms",
    "fcos_wo_ctrness": "fcos.res50.fpn.coco.800size.3x_ms.wo_ctrness",
    "loss": "loss.res50.fpn.coco.800size.3x_ms",
    "poto": "poto.res50.fpn.coco.800size.3x_ms",
    "poto_3dmf": "poto.res50.fpn.coco.800size.3x_ms.3dmf",
    "poto_3dmf_aux": "poto.res50.fpn.coco.800size.3x_ms.3dmf.aux",
    "poto_argmax": "poto.res50.fpn.coco.800size.3x_ms.argmax",
}
DW = "dw"
TOLERANCE = 1e-4  # relative tolerance of the sum of all losses
HEADER = ["scheme", "G"]
for _name in ("assign ms", "total ms", "peak MiB"):
    HEADER += [_name, "official", "official / ours"]


@dataclass(frozen=True)
class Official:
    """The official code on a scene.

    Attributes:
        losses: the forward pass of assignment and losses.
        assign: the assignment alone; None if it cannot be called apart from the losses.
        maps: the prediction maps, which get gradients.
    """

    losses: Callable[[], dict[str, Tensor]]
    assign: Callable[[], object] | None
    maps: list[Tensor]

    def train(self) -> Tensor:
        """Forward and backward pass. Returns the sum of the losses."""
        total = sum(self.losses().values())
        total.backward()
        for x in self.maps:
            x.grad = None
        return total.detach()


class _Given(nn.Module):
    """A module that always returns the given result."""

    def __init__(self, result: object):
        super().__init__()
        self.result = result

    def forward(self, *_: object) -> object:
        return self.result


def defcn(checkout: Path, scheme: str, scene: Scene) -> Official:
    """A detector of DeFCN whose head returns the scene's maps."""
    folder = checkout / "playground" / "detection" / "coco" / DEFCN[scheme]
    code, config = (
        stand_ins.load(_existing(folder / name, "--defcn", checkout, "Megvii-BaseDetection/DeFCN"), stand_ins.CVPODS)
        for name in ("fcos.py", "config.py")
    )
    cfg = config.config
    names = cfg.MODEL.FCOS.IN_FEATURES
    backbone = _Given(dict.fromkeys(names))
    backbone.output_shape = lambda: dict.fromkeys(names, ShapeSpec(channels=32))
    shifts = _Given([_points(scene)] * len(scene.boxes))
    shifts.num_cell_shifts = [1] * len(names)
    cfg.build_backbone = lambda *_, **__: backbone
    cfg.build_shift_generator = lambda *_: shifts
    model = code.FCOS(cfg)
    maps = [_leaves(scene.logits), _leaves(scene.ltrb)]
    if hasattr(model.head, "filter"):
        maps.append(_leaves(scene.filter))
    model.head = _Given(maps)
    model.preprocess_image = lambda _: SimpleNamespace(tensor=None)
    inputs = [
        {"instances": Instances((HEIGHT, WIDTH), gt_boxes=Boxes(boxes), gt_classes=classes)}
        for boxes, classes in zip(scene.boxes, scene.classes, strict=True)
    ]
    assignments = [
        _recorded(model, name, lambda: model(inputs))
        for name in ("get_ground_truth", "get_aux_ground_truth")
        if hasattr(model, name)
    ]
    return Official(
        lambda: model(inputs),
        lambda: [assign() for assign in assignments],
        [x for levels in maps for x in levels],
    )


def dw(checkout: Path, scheme: str, scene: Scene) -> Official:
    """DW's head. It computes its weights inside its losses."""
    paths = [
        _existing(checkout / name, "--dw", checkout, "strongwolf/DW")
        for name in ("dw_head.py", "configs/dw_r50_fpn_1x_coco.py", "configs/dw_r50_fpn_worefine_1x_coco.py")
    ]
    code = stand_ins.load(paths[0], stand_ins.MMDET)
    options: dict = {}
    for path in paths[1:]:  # the second one changes the first
        options |= runpy.run_path(str(path))["model"]["bbox_head"]
    head = code.DWHead(**options)
    maps = [_leaves(x) for x in (scene.logits, scene.ltrb, scene.quality)]
    return Official(
        lambda: head.loss(*maps, scene.boxes, scene.classes, img_metas=None),
        None,
        [x for levels in maps for x in levels],
    )


def _existing(path: Path, option: str, checkout: Path, repository: str) -> Path:
    if not path.is_file():
        raise UserError(
            f"{option} {checkout}: it has no {path.relative_to(checkout)}; "
            f"expected is a checkout of https://github.com/{repository}"
        )
    return path


def _points(scene: Scene) -> list[Tensor]:
    sizes = [x.shape[-2:] for x in scene.logits]
    return stand_ins.Points(STRIDES).grid_priors(sizes, torch.float32, torch.device("cpu"))


def _leaves(levels: Sequence[Tensor]) -> list[Tensor]:
    return [x.clone().requires_grad_() for x in levels]


def _recorded(model: nn.Module, name: str, run: Callable[[], object]) -> Callable[[], object]:
    """A function that calls a method with the arguments that the method gets in a run."""
    method, calls = getattr(model, name), []

    def record(*args: object) -> object:
        calls.append(args)
        return method(*args)

    setattr(model, name, record)
    run()
    delattr(model, name)
    return lambda: method(*calls[-1])


@dataclass(frozen=True)
class Comparison:
    """Two implementations of one scheme, ours first.

    Attributes:
        assignment, total: median milliseconds of ours and official, and the median of official / ours over the turns.
            The assignment is None if the official assignment cannot be called alone.
        memory: peak MiB that a call allocates, forward and backward.
    """

    assignment: tuple[float, float, float] | None
    total: tuple[float, float, float]
    memory: tuple[float, float]


def compare(scheme: str, official: Official, ours: Case, turns: int) -> Comparison:
    """Checks that both implementations have equal losses, then calls them in turn.

    Raises:
        UserError: the sums of the losses differ by more than one in 10,000.
    """
    our_loss, their_loss = float(ours.train()), float(official.train())
    if not abs(our_loss - their_loss) <= TOLERANCE * abs(their_loss):
        raise UserError(
            f"{scheme}: the losses sum to {our_loss:.6g} here and to {their_loss:.6g} in the official code; "
            "expected is its last commit, unchanged"
        )
    memory = peak_allocated_mib(ours.train), peak_allocated_mib(official.train)
    assignment = None if official.assign is None else _in_turn(ours.assign, official.assign, turns)
    return Comparison(assignment, _in_turn(ours.train, official.train, turns), memory)


def _in_turn(ours: Callable[[], object], official: Callable[[], object], turns: int) -> tuple[float, float, float]:
    times = []
    for turn in range(turns + 1):
        order = (ours, official) if turn % 2 else (official, ours)
        taken = {run: _milliseconds(run) for run in order}
        times.append((taken[ours], taken[official]))
    times = times[1:]  # the first turn is a warm-up
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, statistics.median(y / x for x, y in times)


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def run(args: argparse.Namespace) -> None:
    """Prints a row for every scheme and number of ground truths."""
    given = [s for s in DEFCN if args.defcn and s != "loss"] + [DW] * bool(args.dw)
    schemes = chosen(args.schemes, [*DEFCN, DW]) if args.schemes else given
    if not schemes:
        raise UserError("nothing to compare with: give a checkout by --defcn DIR or --dw DIR")
    for scheme in schemes:
        if not (args.dw if scheme == DW else args.defcn):
            raise UserError(f"--schemes {scheme}: it needs a checkout, {'--dw' if scheme == DW else '--defcn'} DIR")
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, CPU", file=sys.stderr)
    rows = []
    for scheme in schemes:
        for num_gts in args.gts:
            print(f"{scheme}, G = {num_gts}", file=sys.stderr)
            scene = make_scene(num_gts)
            theirs = dw(args.dw, scheme, scene) if scheme == DW else defcn(args.defcn, scheme, scene)
            ours = scheme_case(scheme, num_gts, "cpu")
            rows.append(_row(scheme, num_gts, compare(scheme, theirs, ours, args.turns)))
    print(tabulate(rows, HEADER, tablefmt="github", disable_numparse=True))


def _row(scheme: str, num_gts: int, found: Comparison) -> list[str]:
    cells = [scheme, str(num_gts)]
    for times in (found.assignment, found.total):
        cells += ["", "", ""] if times is None else [f"{times[0]:.1f}", f"{times[1]:.1f}", f"{times[2]:.1f}x"]
    ours, official = found.memory
    return cells + [f"{ours:.0f}", f"{official:.0f}", f"{official / ours:.1f}x"]
