"""Batch normalisation with statistics that do not change."""

import torch.nn.functional as F
from torch import Tensor, nn


class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that always uses its running statistics, while its weight and bias are trained.

    It is meant for fine-tuning with few images per process. Detectron2's FrozenBN also fixes weight and bias; it
    replaces this layer in frozen stages. The class can be the `norm` wherever Detectron2 takes a name or a callable.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
