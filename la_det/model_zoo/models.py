"""Models by the name of their config."""

import torch
from torch import nn

from la_det.build import build_model, load_model
from la_det.model_zoo.names import get_config


def get(name: str, checkpoint: str | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """The model of this config in evaluation mode.

    Args:
        checkpoint: file or address of trained weights; None: random weights.

    Raises:
        KeyError: there is no config of this name.
        UserError: the checkpoint cannot be read or belongs to another model.
    """
    config = get_config(name)
    config.train.device = str(device)
    return build_model(config).eval() if checkpoint is None else load_model(config, checkpoint)[0]
