import json
from collections import Counter
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import pytest
from PIL import Image

from la_det.data.loader import build_test_loader, build_train_loader
from la_det.data.mapper import DatasetMapper
from la_det.data.records import load_records
from la_det.errors import UserError

READ = DatasetMapper(is_train=False, augmentations=[], image_format="RGB")


@pytest.fixture
def records(tmp_path):
    records = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (8, 6), (i, i, i)).save(path)
        records.append({"file_name": str(path), "image_id": i, "width": 8, "height": 6})
    return records


def test_test_loader_gives_every_image_once_in_batches(records):
    batches = list(build_test_loader(dataset=records, mapper=READ, batch_size=2))
    assert [[image["image_id"] for image in batch] for batch in batches] == [[0, 1], [2, 3], [4]]
    assert batches[1][1]["image"][0, 0, 0] == 3


def test_test_loader_puts_images_of_one_size_together(records, tmp_path):
    for i in (0, 3):
        Image.new("RGB", (6, 8), (i, i, i)).save(tmp_path / f"{i}.png")
        records[i] |= {"width": 6, "height": 8}
    batches = list(build_test_loader(dataset=records, mapper=READ, batch_size=2))
    assert [[image["image_id"] for image in batch] for batch in batches] == [[0, 3], [1, 2], [4]]


def test_workers_stay_for_a_second_pass(records):
    loader = build_test_loader(dataset=records, mapper=READ, num_workers=1, prefetch_factor=3)
    assert len(list(loader)) == 5 and loader.prefetch_factor == 3
    (worker,) = loader._iterator._workers
    assert len(list(loader)) == 5 and worker.is_alive()
    assert loader._iterator._workers == [worker]


def test_memory_is_pinned_where_there_is_a_gpu(records, monkeypatch):
    def build(**options):
        return build_train_loader(dataset=records, mapper=READ, total_batch_size=5, **options).pin_memory

    for there in (False, True):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert build() is there and build(pin_memory=not there) is not there


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n broken", b"no image"])
def test_broken_image_is_named(records, tmp_path, damage):
    (tmp_path / "3.png").write_bytes(damage)
    with pytest.raises(UserError, match=r"3\.png: cannot read this image"):
        list(build_test_loader(dataset=records, mapper=READ))


def test_image_of_another_size_is_named(records, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match=r"0\.png: cannot read this image"):
        next(iter(build_train_loader(dataset=records, mapper=READ, total_batch_size=5)))


def test_batch_has_to_divide_over_processes(records, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(UserError, match="total_batch_size=3 is no multiple of 2 processes"):
        build_train_loader(dataset=records, mapper=READ, total_batch_size=3)


@pytest.fixture
def rare(tmp_path):
    """Ten images; a class is in one of them only."""
    path = tmp_path / "a.json"
    annotations = [{"image_id": i, "category_id": int(i == 7), "bbox": [0, 0, 2, 2]} for i in range(10)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 6} for i in range(10)],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "common"}, {"id": 1, "name": "rare"}],
    }
    path.write_text(json.dumps(content))
    return load_records(f"coco:{tmp_path},{path}", filter_empty=True)


def image_ids(loader, start, count):
    loader.batch_sampler.start = start
    return [[record["image_id"] for record in batch] for batch in islice(iter(loader), count)]


@pytest.mark.parametrize("repeat_threshold", [0.0, 0.9])
def test_rare_classes_are_repeated_and_resuming_is_exact(rare, repeat_threshold):
    def loader():
        return build_train_loader(
            dataset=rare, mapper=lambda record: record, total_batch_size=2, repeat_threshold=repeat_threshold
        )

    batches = image_ids(loader(), 0, 300)
    counts = Counter(chain.from_iterable(batches))
    assert counts[7] / counts[0] == pytest.approx(3 if repeat_threshold else 1, rel=0.1)  # sqrt(0.9 / 0.1)
    assert image_ids(loader(), 100, 200) == batches[100:]
    state = loader().batch_sampler.state_dict()
    assert state["repeated images"] == (1 if repeat_threshold else 0)


def test_checkpoints_from_before_repetition_are_taken(rare, caplog):
    stream = build_train_loader(dataset=rare, mapper=READ, total_batch_size=2).batch_sampler
    state = stream.state_dict()
    del state["repeated images"]
    stream.load_state_dict(state)
    assert not caplog.records


def test_nothing_to_train_on(records, rare):
    region = {"bbox": [0, 0, 1, 1], "category_id": 0, "iscrowd": 1}
    datasets = [
        [record | {"annotations": []} for record in records],
        [record | {"annotations": [region]} for record in records],
        replace(rare, crowd=np.ones(10, bool)),
        replace(rare, crowd=np.arange(10) != 7).choose(np.arange(10) != 7),
        rare.choose(np.zeros(10, bool)),
    ]
    for dataset in datasets:
        with pytest.raises(UserError, match="no image has an object; there is nothing to train on"):
            build_train_loader(dataset=dataset, mapper=READ, total_batch_size=1)


def test_masks_are_needed_where_the_mapper_reads_them(records, rare):
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="RGB", use_instance_mask=True)
    dicts = [record | {"annotations": [{"bbox": [0, 0, 1, 1], "category_id": 0}]} for record in records]
    for dataset in (rare, dicts):
        with pytest.raises(UserError, match="no segmentation, and this model learns masks"):
            build_train_loader(dataset=dataset, mapper=mapper, total_batch_size=1)


def test_workers_share_the_records(rare):
    """What they read are arrays, no Python objects that each process would copy."""
    import pickle

    copied = pickle.loads(pickle.dumps(rare))
    assert list(copied) == list(rare)
    one, two = (
        image_ids(build_train_loader(dataset=rare, mapper=_same, total_batch_size=2, num_workers=n), 0, 20)
        for n in (0, 2)
    )
    assert one == two


def _same(record):
    return record
