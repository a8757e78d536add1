"""Peak memory of a call."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch


def peak_extra_mib(run: Callable[[], object], device: str) -> float:
    """Peak memory during `run` beyond that in use before, in MiB: resident memory on a CPU, allocated memory on CUDA.

    The CPU figure needs Linux with glibc.
    """
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the heap keeps would hide memory of the run
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status_kib("VmRSS")
    run()
    return (_status_kib("VmHWM") - before) / 2**10


def peak_allocated_mib(run: Callable[[], object]) -> float:
    """Peak of the memory that PyTorch allocates on the CPU during `run`, beyond that allocated before, in MiB."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler prints messages
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def keep_freed_memory() -> None:
    """Lets glibc keep memory that this process frees, as PyTorch does on a GPU. Other C libraries stay as they are.

    By default, glibc gives blocks above 32 MiB back to the system. The page faults of the next call then take several
    times as long as the call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_trim_threshold, 1 << 30)
        mallopt(m_mmap_max, 0)


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")
