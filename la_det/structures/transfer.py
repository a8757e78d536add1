"""Moving numbers from the host to a device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def on_device(values: Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.tensor(values, dtype=dtype, device=device)`, which would first wait until the GPU has nothing to do."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
