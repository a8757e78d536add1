"""Training and test loaders for LazyConfig. Records and mappers are Detectron2's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import trivial_batch_collator
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.samplers import InferenceSampler, RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from la_det.data.stream import SeededDataset, TrainStream
from la_det.data.table import Joined, Records
from la_det.errors import UserError
from la_det.signals import leave_signals_to_parent

Mapper = Callable[[dict], dict]


def build_train_loader(
    *,
    dataset: Sequence[dict],
    mapper: Mapper,
    total_batch_size: int,
    num_workers: int = 0,
    prefetch_factor: int = 2,
    pin_memory: bool | None = None,
    aspect_ratio_grouping: bool = False,
    repeat_threshold: float = 0.0,
    seed: int = 0,
) -> DataLoader:
    """Endless loader of `list[dict]` batches, with `total_batch_size` images over all processes.

    `loader.batch_sampler.start` skips batches when a run is resumed. Batches do not depend on `num_workers`.

    Args:
        prefetch_factor: number of batches that each worker keeps ready.
        pin_memory: whether images lie in pinned memory, whose copies to a GPU need no wait; None: if there is a GPU.
        repeat_threshold: a class in a smaller share f of the images is rare, and its images come
            sqrt(repeat_threshold / f) times an epoch (repeat-factor sampling, arXiv 1908.03195); 0: no repetition.

    Raises:
        UserError: the batch cannot be divided by the number of processes, there is nothing to train on, or the mapper
            reads masks and an object has none.
    """
    world_size = comm.get_world_size()
    if total_batch_size % world_size:
        raise UserError(
            f"dataloader.train.total_batch_size={total_batch_size} is no multiple of {world_size} processes"
        )
    parts = dataset.parts if isinstance(dataset, Joined) else [dataset]
    if not any(map(_has_objects, parts)):
        _require_objects(parts[0])
    if getattr(mapper, "use_instance_mask", False):
        require_masks(dataset)
    groups = (
        np.concatenate([_is_portrait(part) for part in parts])
        if aspect_ratio_grouping
        else np.zeros(len(dataset), bool)
    )
    factors = None
    if repeat_threshold > 0:
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dataset, repeat_threshold)
    return DataLoader(
        SeededDataset(_shared(dataset), partial(map_record, mapper), seed),
        batch_sampler=TrainStream(groups, total_batch_size // world_size, seed, factors),
        **_loading(num_workers, prefetch_factor, pin_memory),
        collate_fn=trivial_batch_collator,
        generator=torch.Generator(),  # torch's default generator belongs to the model and is in checkpoints
    )


def build_test_loader(
    *,
    dataset: Sequence[dict],
    mapper: Mapper,
    batch_size: int = 1,
    num_workers: int = 0,
    prefetch_factor: int = 2,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
) -> DataLoader:
    """Loader of every record once, split over the processes. Detectron2's loader has no batch size in release 0.6.

    Images of the same size follow one another, so that batches have few sizes.

    Args:
        prefetch_factor, pin_memory: as in `build_train_loader`.
        persistent_workers: whether the workers stay for a further pass, such as that with EMA weights.
    """
    parts = dataset.parts if isinstance(dataset, Joined) else [dataset]
    order = np.lexsort(np.concatenate([_sizes(part) for part in parts]).T)
    return DataLoader(
        MapDataset(_shared(dataset), partial(map_record, mapper)),
        batch_size=batch_size,
        sampler=order[list(InferenceSampler(len(dataset)))].tolist(),
        **_loading(num_workers, prefetch_factor, pin_memory),
        persistent_workers=persistent_workers and num_workers > 0,
        collate_fn=trivial_batch_collator,
        generator=torch.Generator(),
    )


def _loading(num_workers: int, prefetch_factor: int, pin_memory: bool | None) -> dict[str, Any]:
    """Options of `DataLoader`, which accepts some of them only with workers."""
    return {
        "num_workers": num_workers,
        "prefetch_factor": prefetch_factor if num_workers else None,
        "worker_init_fn": leave_signals_to_parent,
        "pin_memory": torch.cuda.is_available() if pin_memory is None else pin_memory,
    }


def require_masks(dataset: Sequence[dict]) -> None:
    """Raise `UserError` if an object has no usable mask; the message names file and annotation."""
    for part in dataset.parts if isinstance(dataset, Joined) else [dataset]:
        if isinstance(part, Records):
            part.require_masks()
            continue
        for record in part:
            objects = [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
            lacking = [i for i, annotation in enumerate(objects) if not annotation.get("segmentation")]
            if lacking:
                raise UserError(
                    f"{record['file_name']}: object {lacking[0]} has no segmentation, and this model learns masks; add "
                    "it, remove the object, or train a model of boxes"
                )


def map_record(mapper: Mapper, record: dict) -> dict:
    """The result of `mapper(record)`. If any mapper cannot read an image, a `UserError` names the file."""
    try:
        return mapper(record)
    except (OSError, SyntaxError, SizeMismatchError) as error:  # Pillow raises SyntaxError for a broken PNG
        reason = " ".join(str(error).split())
        raise UserError(f"{record['file_name']}: cannot read this image ({reason}); replace or remove it") from error


def _shared(dataset: Sequence[dict]) -> Sequence[dict]:
    """The records in memory that worker processes share; lists of dicts are copied to such memory."""
    if isinstance(dataset, Joined):
        return Joined([_shared(part) for part in dataset.parts])
    return dataset if isinstance(dataset, Records) else DatasetFromList(dataset, copy=False)


def _has_objects(records: Sequence[dict]) -> bool:
    if isinstance(records, Records):
        return records.annotated and bool((records.is_used() & ~records.crowd).any())
    return any(
        "annotations" not in record or not all(a.get("iscrowd", 0) for a in record["annotations"]) for record in records
    )


def _require_objects(records: Sequence[dict]) -> NoReturn:
    """Raise `UserError` for records without objects."""
    if isinstance(records, Records):
        records.require_objects()
    source = records[0]["file_name"] if len(records) else "the data set"
    raise UserError(f"{source}: no image has an object; there is nothing to train on")


def _sizes(records: Sequence[dict]) -> np.ndarray:
    """[M, 2] height and width, 0 where they are not known."""
    if isinstance(records, Records):
        return records.sizes[records.images()]
    sizes = [(record.get("height", 0), record.get("width", 0)) for record in records]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _is_portrait(records: Sequence[dict]) -> np.ndarray:
    if isinstance(records, Records):
        return records.is_portrait()
    return np.array([record["width"] <= record["height"] for record in records], dtype=bool)
