"""Peak memory of a call."""

from collections.abc import Callable
from pathlib import Path

import torch


def peak_extra_mib(run: Callable[[], object], device: str) -> float:
    """Peak memory during `run` beyond what was in use before, in MiB: resident memory on a CPU, allocated on CUDA.

    The CPU figure needs Linux, and a process whose heap holds no freed memory yet: call it before anything else.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status_kib("VmRSS")
    run()
    return (_status_kib("VmHWM") - before) / 2**10


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")
