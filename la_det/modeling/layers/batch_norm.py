"""Batch normalisation with statistics that do not change."""

import torch.nn.functional as F
from torch import Tensor, nn


class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that always uses its running statistics, and whose weight and bias are trained.

    For fine-tuning with few images per process. Detectron2's FrozenBN also keeps weight and bias; it replaces this
    layer in frozen stages. To be given as `norm` wherever Detectron2 takes the name of a norm or a callable.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
