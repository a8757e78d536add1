"""Optimizers. The trainer sets `optimizer.params.model`. `fused` updates all parameters by a few kernels."""

import torch
from detectron2.config import LazyCall as L

from la_det.engine import optimizers
from la_det.engine.param_groups import param_groups

SGD = L(optimizers.SGD)(
    params=L(param_groups)(lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    fused=True,
)

AdamW = L(torch.optim.AdamW)(
    params=L(param_groups)(lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0),
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    fused=True,
)
