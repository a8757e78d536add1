"""Operations of PyTorch that wait for the work queued on a GPU, done without a wait or with fewer waits."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def on_device(values: float | Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Like `torch.tensor(values, dtype=dtype, device=device)`, without a wait."""
    return move(torch.tensor(values, dtype=dtype, device="cpu"), device)


def constant(values: float | Sequence, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Like `on_device`, for values that are the same in every step: a GPU gets them once. Never change the tensor.

    Args:
        values: a number, or (nested) tuples of numbers.
    """
    make = on_device if recording() else _constant
    return make(values, torch.device(device), dtype)


@lru_cache(maxsize=512)
def _constant(values: float | Sequence, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # training may save the tensor for its backward pass
        return on_device(values, device, dtype)


def recording() -> bool:
    """Whether a graph is being recorded: tensors made now belong to the graph, and sizes may be symbols."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def move(x: Tensor, device: torch.device) -> Tensor:
    """Like `x.to(device)`, without a wait if `x` is on the host."""
    return x.to(device, non_blocking=x.device.type == "cpu")


def true_indices(*masks: Tensor) -> list[Tensor]:
    """Indices [n] of the True elements of each mask [P], with one wait for all masks."""
    numbers = torch.stack([mask.sum() for mask in masks]).tolist()  # host synchronisation
    return [torch.nonzero_static(mask, size=n).squeeze(1) for mask, n in zip(masks, numbers, strict=True)]


def at_most(limit: int, count: int | Tensor) -> int | Tensor:
    """min(limit, count), also where a graph is recorded and sizes are symbols (torch.export) or tensors (tracing)."""
    return count.clamp(max=limit) if isinstance(count, Tensor) else torch.sym_min(limit, count)
