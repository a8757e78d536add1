"""Training and test loaders for LazyConfig. Records and mappers are Detectron2's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import trivial_batch_collator
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from la_det.data.stream import SeededDataset, TrainStream
from la_det.engine.signals import leave_signals_to_parent
from la_det.errors import UserError

Mapper = Callable[[dict], dict]


def build_train_loader(
    *,
    dataset: list[dict],
    mapper: Mapper,
    total_batch_size: int,
    num_workers: int = 0,
    prefetch_factor: int = 2,
    pin_memory: bool | None = None,
    aspect_ratio_grouping: bool = False,
    seed: int = 0,
) -> DataLoader:
    """Endless loader of `list[dict]` batches, `total_batch_size` images over all processes.

    `loader.batch_sampler.start` skips batches when a run is resumed. Batches do not depend on `num_workers`.

    Args:
        prefetch_factor: batches that each worker has ready.
        pin_memory: images lie in memory from which copies to a GPU need no wait; None does so where there is a GPU.
    """
    world_size = comm.get_world_size()
    if total_batch_size % world_size:
        raise UserError(
            f"dataloader.train.total_batch_size={total_batch_size} is no multiple of {world_size} processes"
        )
    groups = [int(r["width"] <= r["height"]) if aspect_ratio_grouping else 0 for r in dataset]
    records = DatasetFromList(dataset, copy=False)
    return DataLoader(
        SeededDataset(records, partial(map_record, mapper), seed),
        batch_sampler=TrainStream(groups, total_batch_size // world_size, seed),
        **_loading(num_workers, prefetch_factor, pin_memory),
        collate_fn=trivial_batch_collator,
        generator=torch.Generator(),  # the default one belongs to the model and is part of a checkpoint
    )


def build_test_loader(
    *,
    dataset: list[dict],
    mapper: Mapper,
    batch_size: int = 1,
    num_workers: int = 0,
    prefetch_factor: int = 2,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
) -> DataLoader:
    """Loader of every record once, split over the processes; Detectron2's has no batch size in release 0.6.

    Args:
        prefetch_factor, pin_memory: as in `build_train_loader`.
        persistent_workers: the workers stay for a further pass, such as that of the EMA weights.
    """
    return DataLoader(
        MapDataset(DatasetFromList(dataset, copy=False), partial(map_record, mapper)),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        **_loading(num_workers, prefetch_factor, pin_memory),
        persistent_workers=persistent_workers and num_workers > 0,
        collate_fn=trivial_batch_collator,
        generator=torch.Generator(),
    )


def _loading(num_workers: int, prefetch_factor: int, pin_memory: bool | None) -> dict[str, Any]:
    """Options of `DataLoader`, which takes some only where there are workers."""
    return {
        "num_workers": num_workers,
        "prefetch_factor": prefetch_factor if num_workers else None,
        "worker_init_fn": leave_signals_to_parent,
        "pin_memory": torch.cuda.is_available() if pin_memory is None else pin_memory,
    }


def map_record(mapper: Mapper, record: dict) -> dict:
    """`mapper(record)`; an image that cannot be read becomes a `UserError` naming its file."""
    try:
        return mapper(record)
    except (OSError, SyntaxError, SizeMismatchError) as error:  # Pillow raises SyntaxError for a broken PNG
        reason = " ".join(str(error).split())
        raise UserError(f"{record['file_name']}: cannot read this image ({reason}); replace or remove it") from error
