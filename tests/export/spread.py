"""Detectors that find many different things without training."""

from pathlib import Path

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn


def spread_weights(config: DictConfig, path: Path) -> Path:
    """Random weights of the config's model whose probabilities, boxes and masks differ much, saved to `path`."""
    torch.manual_seed(0)
    model = instantiate(config.model)
    for predictor in model.head.predictors.values():
        nn.init.normal_(predictor.logits.weight, std=0.1)
        nn.init.constant_(predictor.logits.bias, -2.0)
        nn.init.normal_(predictor.boxes.weight, std=0.05)
        if "relu" in predictor.box_activation:
            nn.init.constant_(predictor.boxes.bias, 1.5)  # boxes of some strides, many of which overlap
        for name, layer in predictor.named_modules():
            others = {"quality", "filter", "controller", "offset"} & set(name.split("."))
            if others and isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.05)
    torch.save({"model": model.state_dict()}, path)
    return path
