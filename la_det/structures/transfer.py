"""Moving numbers from the host to a device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def on_device(values: Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Like `torch.tensor(values, dtype=dtype, device=device)`, but without waiting for the work queued on a GPU."""
    return move(torch.tensor(values, dtype=dtype, device="cpu"), device)


def move(x: Tensor, device: torch.device) -> Tensor:
    """Like `x.to(device)`, but from the host to a GPU without waiting for the work queued there."""
    return x.to(device, non_blocking=x.device.type == "cpu")
