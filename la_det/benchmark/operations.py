"""Counts of the operations that a call launches, and of its waits for their results.

On a GPU, small operations cost the time that the CPU takes to launch them, whatever their size. During a wait, the CPU
launches nothing. Both can be counted on any machine, without a clock.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from la_det.structures import chunks

# These operators only make views, memory or metadata.
_FREE = {"alias", "detach", "lift_fresh", "_unsafe_view"}
_FREE |= {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# These operators need a number on the host: a value, or the size of the result.
_WAITS = {"_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero", "unique_dim"}


@dataclass(frozen=True)
class Counts:
    """For each operator, how often it ran in a call, and how often it waited."""

    operations: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)


def count_operations(run: Callable[[], object]) -> Counts:
    """Counts ATen's operators in a call on the CPU that takes the code path of a GPU, with its backward pass.

    Views, allocations and `detach` are free. Waits are `nonzero` and similar operators, masks as indices,
    `repeat_interleave` without the size of its result, and copies to the host: `item`, `tolist`, `cpu` and `bool`.
    """
    counts = Counts()
    with ExitStack() as stack:
        stack.enter_context(patch.object(chunks, "in_chunks", lambda device: False))
        stack.enter_context(_Copies(counts))
        stack.enter_context(_Operators(counts))
        run()
    return counts


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counts):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if not func.is_view and name not in _FREE:
            self.counts.operations[name] += 1
            if name == "agnostic_nms":  # its result's size, of each image
                self.counts.waits[name] += len(args[0])
            if name in _WAITS or _indexes_by_mask(name, args) or _repeats_unknown(name, kwargs):
                self.counts.waits[name] += 1
        return func(*args, **kwargs)


def _indexes_by_mask(name: str, args: tuple) -> bool:
    is_index = name in {"index", "index_put", "index_put_", "_index_put_impl_"}
    return is_index and any(x is not None and x.dtype == torch.bool for x in args[1])


def _repeats_unknown(name: str, kwargs: dict) -> bool:
    return name == "repeat_interleave" and kwargs.get("output_size") is None


class _Copies(TorchFunctionMode):
    """Counts copies to the host, which are no operators on a CPU."""

    def __init__(self, counts: Counts):
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.cpu, Tensor.tolist):
            self.counts.waits[func.__name__] += 1
        return func(*args, **(kwargs or {}))
