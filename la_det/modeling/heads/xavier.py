"""The initialisation of OneNet's heads (Sun et al., ICML 2021, official code)."""

from typing import Any

import torch
from torch import nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import ConvTower


class XavierTower(ConvTower):
    """A `ConvTower` with Xavier's uniform weights and PyTorch's default biases.

    Args:
        options: of `ConvTower`.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.apply(init_xavier)


class XavierPredictor(BranchPredictor):
    """A `BranchPredictor` with Xavier's uniform weights. All biases but those of the classes are PyTorch's default.

    Args:
        options: of `BranchPredictor`.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        bias = self.logits.bias.detach().clone()
        self.apply(init_xavier)
        with torch.no_grad():
            self.logits.bias.copy_(bias)


def init_xavier(module: nn.Module) -> None:
    """Initialises a plain convolution. Ignores other modules."""
    if isinstance(module, nn.Conv2d):
        module.reset_parameters()
        nn.init.xavier_uniform_(module.weight)
