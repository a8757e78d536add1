"""Start of the processes: torchrun's, or those that `--num-gpus` spawns, with the same set-up."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import multiprocessing
from torch.distributed.distributed_c10d import _get_default_store

from la_det.errors import LOST_PROCESS, UserError, one_line_errors
from la_det.signals import Interrupted, stop_signals

Main = Callable[[argparse.Namespace], None]

GRACE = 10.0  # seconds that the other processes have to end after one has failed


def launch(main: Main, args: argparse.Namespace) -> None:
    """Call `main(args)` in every process: this one, torchrun's, or `args.num_gpus` spawned processes on each machine.

    A `UserError` becomes one line and exit status 2. SIGTERM and SIGINT lead to exit status 128 + their number. If
    several processes fail for the same reason, only one prints it. No process outlives the launcher.

    `args` has Detectron2's `num_gpus`, `num_machines`, `machine_rank` and `dist_url`. Without CUDA, `num_gpus` is the
    number of CPU processes. NCCL connects GPUs, gloo connects CPUs.
    """
    if dist.is_torchelastic_launched():
        local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        _run(main, args, "env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), local_rank, local_size)
    elif args.num_gpus * args.num_machines > 1:
        _spawn(main, args)
    else:
        _run(main, args, "", 0, 1, 0, 1)


def _spawn(main: Main, args: argparse.Namespace) -> None:
    if args.dist_url == "auto":
        if args.num_machines > 1:
            _fail(f"--num-machines {args.num_machines}: name with --dist-url where the processes meet")
        args.dist_url = f"tcp://127.0.0.1:{_free_port()}"
    elif args.machine_rank == 0:
        _check_port(args.dist_url)
    has_spoken = multiprocessing.get_context("spawn").Event()
    processes = multiprocessing.start_processes(
        _spawned, (main, args, has_spoken), nprocs=args.num_gpus, join=False, start_method="spawn"
    )
    received = 0

    def forward(number: int, frame: object) -> None:
        nonlocal received
        received = number
        for process in processes.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    try:
        while not processes.join(grace_period=GRACE):
            pass
    except multiprocessing.ProcessExitedException as error:
        if received:
            sys.exit(128 + received)
        if not has_spoken.is_set():
            ended = (
                f"process {error.error_index} was ended by {error.signal_name}" if error.exit_code < 0 else LOST_PROCESS
            )
            _fail(f"{ended}; go on with --resume")
        sys.exit(2 if error.exit_code < 0 else error.exit_code)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


def _check_port(url: str) -> None:
    """Fail if the port is in use: the processes would wait there for a long time."""
    port = urlsplit(url).port
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port or 0))
        except OSError as error:
            _fail(f"--dist-url {url}: {error.strerror}; give another port, or auto")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _spawned(local_rank: int, main: Main, args: argparse.Namespace, has_spoken: Event) -> None:
    rank = args.machine_rank * args.num_gpus + local_rank
    world_size = args.num_gpus * args.num_machines
    _run(main, args, args.dist_url, rank, world_size, local_rank, args.num_gpus, has_spoken)


def _run(
    main: Main,
    args: argparse.Namespace,
    url: str,
    rank: int,
    world_size: int,
    local_rank: int,
    local_size: int,
    has_spoken: Event | None = None,
) -> None:
    if url:
        _end_with_parent()
    try:
        with stop_signals.handled("SIGTERM", "SIGINT"), one_line_errors(lambda line: _speaks(line, has_spoken)):
            if not url:
                main(args)
                return
            if torch.cuda.is_available():
                if local_size > torch.cuda.device_count():
                    raise UserError(f"{local_size} processes, but this machine has {torch.cuda.device_count()} GPUs")
                torch.cuda.set_device(local_rank)
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            # torchrun's store still holds the entries of an earlier attempt.
            store, _, _ = next(dist.rendezvous(url, rank, world_size))
            store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
            _set_local_process_group(rank, world_size, local_size)
            main(args)
            gc.collect()  # a model that ends after its process group can hang in its end
            dist.destroy_process_group()
    except Interrupted as stop:
        if rank == 0:
            print(stop.message, file=sys.stderr, flush=True)
        sys.exit(128 + stop.number)


def _speaks(line: str, has_spoken: Event | None) -> bool:
    """Whether this process prints its error: no other process has, and the launcher does not name the cause."""
    if has_spoken is not None:
        if LOST_PROCESS in line:  # the launcher names the lost process
            return False
        time.sleep(0.2 * comm.get_rank())  # the main process prints first when all stop for the same reason
        first = not has_spoken.is_set()
        has_spoken.set()
        return first
    if not dist.is_initialized():
        return True
    try:
        return _get_default_store().add("la_det/errors", 1) == 1
    except RuntimeError:  # the store's process has died
        return True


def _end_with_parent() -> None:
    """End this process when its parent has ended: a parent that is killed cannot end its children."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(2)

    threading.Thread(target=watch, daemon=True).start()


def _set_local_process_group(rank: int, world_size: int, local_size: int) -> None:
    """Set what `comm.get_local_rank` reads, as Detectron2's `launch` does; release 0.6 has no function for this."""
    for first in range(0, world_size, local_size):
        ranks = range(first, first + local_size)
        group = dist.new_group(list(ranks))  # every process has to join the making of every group
        if rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group
