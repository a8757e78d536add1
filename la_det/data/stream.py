"""The order of training samples and their randomness, as functions of the seed and the position in the stream alone.

Detectron2 shards an endless sampler over the loader's workers and seeds augmentations per worker, so a resumed run sees
other batches. Here the main process makes the batches, and every sample is seeded by its position. Batch `b` is the
same for any number of workers, and for a run that started at batch 0 or at `b`.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

logger = logging.getLogger(__name__)

Key = tuple[int, int]  # position in the endless stream over all processes, index in the data set


class TrainStream(Sampler[list[Key]]):
    """Endless batches of this process, for `DataLoader(batch_sampler=...)`.

    Args:
        groups: one id per record of the data set; a batch holds records of one group (aspect-ratio grouping). Samples
            wait in the bucket of their group until it is full, as in Detectron2.
        batch_size: images per batch of this process.
        seed: seed of the shuffling, the same in every process.
        repeat_factors: [N] how often each record comes in an epoch, on average; None: once.

    Attributes:
        start: number of batches to skip. Images of skipped batches are not read.
    """

    def __init__(
        self, groups: Sequence[int], batch_size: int, seed: int, repeat_factors: torch.Tensor | None = None
    ) -> None:
        self.groups = np.asarray(groups)
        self.batch_size = batch_size
        self.seed = seed
        self.repeat_factors = repeat_factors
        self.start = 0

    def state_dict(self) -> dict[str, int]:
        """What a batch depends on besides its number."""
        return {
            "seed": self.seed,
            "images": len(self.groups),
            "images per batch and process": self.batch_size,
            "processes": comm.get_world_size(),
            "repeated images": 0 if self.repeat_factors is None else int((self.repeat_factors > 1).sum()),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Warn if the stream is not the checkpoint's. The position in the stream comes from the iteration."""
        changed = [
            f"{name} {state.get(name, 0)} -> {value}"  # streams of earlier checkpoints have no repetition
            for name, value in self.state_dict().items()
            if state.get(name, 0) != value
        ]
        if changed:
            logger.warning(
                "Batches will not be those of an unbroken run, for the data changed: %s.", ", ".join(changed)
            )

    def __iter__(self) -> Iterator[list[Key]]:
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[Key]]:
        buckets: dict[int, list[Key]] = defaultdict(list)
        rank, world_size = comm.get_rank(), comm.get_world_size()
        if self.repeat_factors is None:
            sampler = TrainingSampler(len(self.groups), seed=self.seed)
        else:
            sampler = RepeatFactorTrainingSampler(self.repeat_factors, seed=self.seed)
        for i, index in enumerate(sampler):
            group = int(self.groups[index])
            buckets[group].append((rank + i * world_size, index))
            if len(buckets[group]) == self.batch_size:
                yield buckets.pop(group)


class SeededDataset(Dataset):
    """Maps the record at a key with all random generators seeded by (`seed`, the key's position)."""

    def __init__(self, records: Sequence[dict], mapper: Callable[[dict], dict], seed: int) -> None:
        self.records = records
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, key: Key) -> dict:
        position, index = key
        with seeded(self.seed, position):
            return self.mapper(self.records[index])


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed the generators of augmentations (Python's, NumPy's legacy and torch's CPU generator) inside the context.

    Afterwards they are restored: without loader workers, the model draws from the same generators.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    seeds = np.random.SeedSequence(entropy).generate_state(3).tolist()
    with torch.random.fork_rng(devices=[]):
        random.seed(seeds[0])
        np.random.seed(seeds[1])  # noqa: NPY002
        torch.random.default_generator.manual_seed(seeds[2])
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
