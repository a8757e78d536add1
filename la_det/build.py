"""The only way from a config and weights to a model."""

from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from la_det.checkpoint import Checkpointer
from la_det.checkpoint.recipe import apply_recipe, check_number_of_classes
from la_det.errors import UserError


def device_of(cfg: DictConfig) -> str:
    """Device of `cfg.train.device`; "auto" is a GPU if there is one, else the CPU.

    Nothing is put on the device, not even a CUDA context.

    Raises:
        UserError: this machine does not have the device.
    """
    name = cfg.train.device
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        module = torch.get_device_module(device)
        is_there = module.is_available() and (device.index or 0) < module.device_count()
    except (RuntimeError, TypeError):  # torch knows no such device
        is_there = False
    if not is_there:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
        there = ", ".join(["cpu", *gpus])
        raise UserError(f"train.device={name}: not on this machine, which has {there}; choose one of these, or auto")
    return name


def build_model(cfg: DictConfig) -> nn.Module:
    """The config's model on its device, in the memory format that `cfg.train` asks for."""
    memory_format = torch.channels_last if cfg.train.channels_last else torch.preserve_format
    return instantiate(cfg.model).to(device_of(cfg), memory_format=memory_format)


def load_model(cfg: DictConfig, weights: str) -> tuple[nn.Module, dict[str, Any]]:
    """The model in evaluation mode with trained weights, and the other contents of their file.

    `cfg` gets the settings that converted weights need.

    Raises:
        UserError: no weights are named, they cannot be read, or they belong to another model or number of classes.
    """
    if not weights:
        raise UserError("no trained weights: name a checkpoint, a file or an address")
    apply_recipe(cfg, weights)
    check_number_of_classes(cfg, weights)
    model = build_model(cfg).eval()
    checkpointer = Checkpointer(model, cfg.train.output_dir, allow_pickle=cfg.train.allow_pickle, strict=True)
    return model, checkpointer.load(weights)
