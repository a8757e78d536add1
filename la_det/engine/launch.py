"""Processes: torchrun, or spawned by `--num-gpus`, both through the same set-up."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import multiprocessing

from la_det.errors import UserError, one_line_errors

Main = Callable[[argparse.Namespace], None]


def launch(main: Main, args: argparse.Namespace) -> None:
    """Call `main(args)` in every process: this one, torchrun's, or `args.num_gpus` spawned ones on each machine.

    A `UserError` becomes one line and exit status 2.

    `args` has Detectron2's `num_gpus`, `num_machines`, `machine_rank` and `dist_url`. Without CUDA, `num_gpus` counts
    CPU processes. NCCL connects GPUs, gloo CPUs.
    """
    if dist.is_torchelastic_launched():
        local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        _run(main, args, "env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), local_rank, local_size)
    elif args.num_gpus * args.num_machines > 1:
        context = multiprocessing.start_processes(
            _spawned, (main, args), nprocs=args.num_gpus, join=False, start_method="spawn"
        )
        try:
            while not context.join():
                pass
        except multiprocessing.ProcessExitedException as error:  # it has printed its one-line error
            sys.exit(error.exit_code)
    else:
        with one_line_errors():
            main(args)


def _spawned(local_rank: int, main: Main, args: argparse.Namespace) -> None:
    rank = args.machine_rank * args.num_gpus + local_rank
    _run(main, args, args.dist_url, rank, args.num_gpus * args.num_machines, local_rank, args.num_gpus)


def _run(
    main: Main, args: argparse.Namespace, url: str, rank: int, world_size: int, local_rank: int, local_size: int
) -> None:
    with one_line_errors():
        if torch.cuda.is_available():
            if local_size > torch.cuda.device_count():
                raise UserError(f"{local_size} processes, but this machine has {torch.cuda.device_count()} GPUs")
            torch.cuda.set_device(local_rank)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", url, rank=rank, world_size=world_size)
        _set_local_process_group(rank, world_size, local_size)
        try:
            main(args)
        finally:
            dist.destroy_process_group()


def _set_local_process_group(rank: int, world_size: int, local_size: int) -> None:
    """What Detectron2's own `launch` does for `comm.get_local_rank`; release 0.6 has no function for it."""
    for first in range(0, world_size, local_size):
        ranks = range(first, first + local_size)
        group = dist.new_group(list(ranks))  # every process has to take part in making every group
        if rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group
