"""Show versions and devices, check that what la_det needs works, and say what to do if it does not.

The exit status is 1 if something that la_det needs is broken. Optional parts are only reported.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, version

EXAMPLES = ""
PACKAGES = ("torch", "torchvision", "detectron2", "numpy", "scipy", "pycocotools", "faster-coco-eval", "safetensors")


@dataclass(frozen=True)
class Check:
    """One thing to try. `run` returns the text to print, and raises any exception if the thing does not work."""

    name: str
    run: Callable[[], str]
    advice: str
    needed: bool = True


def torch_works() -> str:
    import torch

    (torch.ones(8, 8) @ torch.ones(8, 8)).sum().item()
    return f"computes on {torch.get_num_threads()} CPU threads"


def cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(f"none (torch {torch.__version__})")
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    torch.ones(8, device="cuda").sum().item()
    return ", ".join(f"{d.name} {d.total_memory / 2**30:.0f} GiB" for d in devices)


def torchvision_ops() -> str:
    import torch
    from torchvision.ops import deform_conv2d, nms

    tried = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in tried:
        boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]], device=device)
        kept = nms(boxes, torch.tensor([0.9, 0.8], device=device), 0.5)
        if kept.tolist() != [0]:
            raise RuntimeError(f"nms on {device} is wrong: {kept.tolist()}")
        image, weight = torch.ones(1, 1, 4, 4, device=device), torch.ones(1, 1, 3, 3, device=device)
        deform_conv2d(image, torch.zeros(1, 18, 2, 2, device=device), weight)
    return f"nms and deform_conv2d on {' and '.join(tried)}"


def detectron2_works() -> str:
    import torch
    from detectron2 import engine, evaluation
    from detectron2.config import LazyCall, instantiate
    from detectron2.modeling.backbone import BasicStem

    instantiate(LazyCall(BasicStem)())(torch.zeros(1, 3, 32, 32))
    works = f"{engine.__name__} and {evaluation.__name__} import, a LazyConfig builds a layer"
    return f"{which_detectron2()}; {works}"


def which_detectron2() -> str:
    """Where the Detectron2 that is imported comes from."""
    import detectron2

    folder = os.path.dirname(str(detectron2.__file__))
    source_tree = f"version {detectron2.__version__}, a source tree in {folder}"
    try:
        distribution = Distribution.from_name("detectron2")
    except PackageNotFoundError:
        return source_tree
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")  # pip's note
    if origin.get("dir_info", {}).get("editable"):
        return f"version {distribution.version}, a checkout at {origin['url']}"
    if not os.path.samefile(folder, str(distribution.locate_file("detectron2"))):
        return source_tree
    if distribution.version.startswith("0.6+py"):  # see install_detectron2.py
        return "release 0.6 in pure Python, patched for current packages, by `la-det install-detectron2`"
    commit = origin.get("vcs_info", {}).get("commit_id")
    source = f" from {origin['url']}" if "url" in origin else ""
    return f"version {distribution.version}{source}{f' at commit {commit}' if commit else ''}"


def compiled_detectron2() -> str:
    importlib.import_module("detectron2._C")
    return "built"


def la_det_works() -> str:
    import la_det
    import la_det.data

    return f"version {la_det.__version__}"


def fast_coco_evaluation() -> str:
    from faster_coco_eval import COCO, COCOeval_faster

    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0, "id": 1}
    image = {"id": 1, "height": 8, "width": 8}
    truth = COCO({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a"}]})
    evaluation = COCOeval_faster(truth, truth.loadRes([box | {"score": 0.5}]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    if abs(evaluation.stats[0] - 1) > 1e-9:
        raise RuntimeError(f"AP of a perfect detection is {evaluation.stats[0]}")
    return "AP of a perfect detection is 1"


def distributed() -> str:
    import torch.distributed as dist

    backends = [name for name, has in (("gloo", dist.is_gloo_available), ("nccl", dist.is_nccl_available)) if has()]
    if not backends:
        raise RuntimeError("torch.distributed has neither gloo nor nccl")
    return ", ".join(backends)


def data_folder() -> str:
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    found = [name for name in ("coco", "CrowdHuman", "shapes_tiny") if os.path.isdir(os.path.join(root, name))]
    if not found:
        raise RuntimeError(f"{os.path.abspath(root)} has no data sets yet")
    return f"{os.path.abspath(root)} has {', '.join(found)}"


CHECKS = (
    Check("torch", torch_works, "install it as the README's set-up does: make setup"),
    Check(
        "CUDA", cuda, "training runs on the CPU; for a GPU install its driver and a torch build for it", needed=False
    ),
    Check("torchvision operators", torchvision_ops, "torch and torchvision do not belong together: make setup"),
    Check("Detectron2", detectron2_works, "la-det install-detectron2"),
    Check(
        "Detectron2's _C", compiled_detectron2, "not needed; la_det uses torchvision and faster-coco-eval", needed=False
    ),
    Check("la_det", la_det_works, "pip install -e . in the repository"),
    Check("fast COCO evaluation", fast_coco_evaluation, "pip install --force-reinstall faster-coco-eval"),
    Check("torch.distributed", distributed, "training in one process works; several need another torch", needed=False),
    Check(
        "data sets", data_folder, "Shapes is generated when first used; for COCO set DETECTRON2_DATASETS", needed=False
    ),
)


def installed(package: str) -> str:
    """Version of a distribution, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """There are no options."""


def run(args: Namespace) -> int:
    """Make all checks. Return 1 if something that la_det needs does not work."""
    print(f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs")
    print(", ".join(f"{package} {installed(package)}" for package in PACKAGES))
    failures = 0
    for check in CHECKS:
        try:
            print(f"[ok]      {check.name}: {check.run()}")
        except Exception as error:  # this command reports whatever is broken
            failures += check.needed
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"[{'BROKEN]' if check.needed else 'without]'} {check.name}: {reason}\n          -> {check.advice}")
    return int(failures > 0)
