import pytest
from PIL import Image

from la_det.data.loader import build_test_loader, build_train_loader
from la_det.data.mapper import DatasetMapper
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
