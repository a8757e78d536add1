"""Counting by index."""

import torch
from torch import Tensor


def count(index: Tensor, length: int) -> Tensor:
    """How often each of 0..length-1 is in `index` [P] int64: [length] int64, like `torch.bincount`."""
    return index.new_zeros(length).index_add_(0, index, torch.ones_like(index))
