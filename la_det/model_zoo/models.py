"""Models by the name of their config."""

import torch
from detectron2.config import instantiate
from torch import nn

from la_det.checkpoint import Checkpointer
from la_det.checkpoint.recipe import apply_recipe
from la_det.model_zoo.configs import get_config


def get(name: str, checkpoint: str | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """The model of this config in evaluation mode.

    Args:
        checkpoint: file or address of its trained weights; without, the weights are random.

    Raises:
        KeyError: there is no config of this name.
        UserError: the checkpoint cannot be read or is of another model.
    """
    config = get_config(name)
    if checkpoint is not None:
        apply_recipe(config, checkpoint)
    model = instantiate(config.model).to(device).eval()
    if checkpoint is not None:
        Checkpointer(model, strict=True).load(checkpoint)
    return model
