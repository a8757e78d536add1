import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from la_det.data.loader import build_train_loader
from la_det.data.stream import TrainStream, seeded

GROUPS = [0, 1, 1, 0, 1, 0, 0, 0, 1, 0]


def take(iterable, count):
    return list(itertools.islice(iterable, count))


def random_record(record: dict) -> dict:
    draws = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
    return record | {"draws": draws}


def loader(num_workers: int, start: int = 0):
    records = [{"id": i, "width": 10 + 10 * group, "height": 15} for i, group in enumerate(GROUPS)]
    result = build_train_loader(
        dataset=records,
        mapper=random_record,
        total_batch_size=2,
        num_workers=num_workers,
        aspect_ratio_grouping=True,
        seed=5,
    )
    result.batch_sampler.start = start
    return result


@given(start=st.integers(0, 40), batch_size=st.integers(1, 4), seed=st.integers(0, 9))
def test_a_resumed_stream_goes_on_where_it_was(start, batch_size, seed):
    whole, resumed = TrainStream(GROUPS, batch_size, seed), TrainStream(GROUPS, batch_size, seed)
    resumed.start = start
    assert take(whole, start + 5)[start:] == take(resumed, 5)


def test_batches_are_of_one_group_and_use_every_sample_once_per_epoch():
    batches = take(TrainStream(GROUPS, 2, 0), 50)
    assert all(len({GROUPS[index] for _, index in batch}) == 1 for batch in batches)
    keys = sorted(key for batch in batches for key in batch)
    epochs = [[index for position, index in keys if position // len(GROUPS) == epoch] for epoch in range(9)]
    assert all(sorted(epoch) == list(range(len(GROUPS))) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_processes_share_the_stream_of_one(monkeypatch):
    alone = take(TrainStream([0] * 10, 6, 0), 3)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        parts.append(take(TrainStream([0] * 10, 2, 0), 3))
    together = [sorted(itertools.chain(*batches)) for batches in zip(*parts, strict=True)]
    assert together == [sorted(batch) for batch in alone]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_samples_do_not_depend_on_workers_or_start(num_workers):
    expected = take(loader(0), 12)
    assert take(loader(num_workers), 12) == expected
    assert take(loader(num_workers, start=7), 5) == expected[7:]
    draws = [draw for batch in expected for sample in batch for draw in sample["draws"]]
    assert len(set(draws)) == len(draws)


def test_resuming_with_other_data_warns(caplog):
    stream = TrainStream(GROUPS, 2, seed=0)
    stream.load_state_dict(TrainStream(GROUPS, 2, seed=0).state_dict())
    assert not caplog.text
    stream.load_state_dict(TrainStream(GROUPS, 4, seed=1).state_dict())
    assert "seed 1 -> 0, images per batch and process 4 -> 2" in caplog.text


def test_seeded_repeats_and_leaves_the_generators_alone():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    with seeded(1, 2):
        first = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    expected = draw(), draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    before = draw()
    with seeded(1, 2):
        assert draw() == first
    with seeded(1, 3):
        assert draw() != first
    assert (before, draw()) == expected


def test_drawing_batches_leaves_the_default_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    take(loader(0), 3)
    assert torch.equal(torch.rand(3), expected)
