"""What PyTorch does after a wait for the work queued on a GPU, without that wait."""

from collections.abc import Sequence

import torch
from torch import Tensor


def on_device(values: Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Like `torch.tensor(values, dtype=dtype, device=device)`."""
    return move(torch.tensor(values, dtype=dtype, device="cpu"), device)


def move(x: Tensor, device: torch.device) -> Tensor:
    """Like `x.to(device)`; only from the host to a GPU without a wait."""
    return x.to(device, non_blocking=x.device.type == "cpu")


def count(index: Tensor, length: int) -> Tensor:
    """How often each of 0..length-1 is in `index` [P] int64: [length] int64, like `torch.bincount`."""
    return index.new_zeros(length).index_add_(0, index, torch.ones_like(index))
