"""Initial weights of backbones from torchvision and timm."""

from __future__ import annotations

import re
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from la_det.errors import UserError
from la_det.modeling.backbone.timm_backbone import import_timm

TORCHVISION = "torchvision://"
TIMM = "timm://"
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")

# Applied in this order. The stem has no "layer" prefix. torchvision counts stages from 1, Detectron2 from 2.
_RENAMES = (
    (r"^(conv1|bn1)", r"stem.\1"),
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"bn(\d)", r"conv\1.norm"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
)


def initial_weights(path: str) -> dict[str, Tensor] | None:
    """Weights at a path that begins with `TORCHVISION` or `TIMM`; None for other paths.

    Raises:
        UserError: the name is unknown, or the weights are not cached and cannot be downloaded.
    """
    if path.startswith(TORCHVISION):
        return torchvision_weights(path)
    if path.startswith(TIMM):
        return timm_weights(path)
    return None


def timm_weights(path: str) -> dict[str, Tensor]:
    """Weights at `timm://<model name>`, downloaded or from the cache, for a `TimmBackbone` with this model."""
    name = path.removeprefix(TIMM)
    try:
        net = import_timm().create_model(name, features_only=True, pretrained=True)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{path}: cannot get timm's weights ({error}); check the name and the network, or choose another "
            "train.init_checkpoint ('' starts from scratch)"
        ) from error
    return {f"net.{key}": value for key, value in net.state_dict().items()}


def torchvision_weights(path: str) -> dict[str, Tensor]:
    """Weights at `torchvision://resnet{18,34,50,101}` (IMAGENET1K_V1, for RGB images) under Detectron2's names."""
    name = path.removeprefix(TORCHVISION)
    if name not in RESNETS:
        raise UserError(f"{path}: unknown initial weights; there are {', '.join(TORCHVISION + r for r in RESNETS)}")
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return convert_torchvision_resnet(weights.get_state_dict(check_hash=True))
    except (URLError, OSError) as error:
        raise UserError(
            f"{path}: cannot download {weights.url} ({error}); put that file into "
            f"{torch.hub.get_dir()}/checkpoints, or choose another train.init_checkpoint ('' starts from scratch)"
        ) from error


def convert_torchvision_resnet(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's parameters under Detectron2's names, without ImageNet classifier and batch counters."""
    return {
        detectron2_name(key): value
        for key, value in state_dict.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }


def detectron2_name(key: str) -> str:
    """Detectron2's name of a parameter of a torchvision ResNet."""
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key
