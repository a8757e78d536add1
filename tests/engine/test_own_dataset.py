import json

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from la_det.data.records import load_records
from la_det.engine import own_dataset
from la_det.engine.own_dataset import check_classes, check_data, use_own_dataset
from la_det.errors import UserError

CONTENT = {
    "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}],
    "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
}


@pytest.fixture
def cfg():
    loader = {"dataset": {"names": "coco_2017"}, "mapper": {}}
    return OmegaConf.create({"dataloader": {"train": loader, "test": loader}, "model": {"num_classes": 80}})


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    return tmp_path


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_one_option_sets_data_and_classes(cfg, folder):
    train, val = write(folder / "train.json", CONTENT), write(folder / "val.json", CONTENT)
    use_own_dataset(cfg, f"coco:{folder},{train},{folder},{val}")
    assert cfg.model.num_classes == 2
    assert cfg.dataloader.train.dataset.names == f"coco:{folder},{train}"
    assert cfg.dataloader.test.dataset.names == f"coco:{folder},{val}"
    assert cfg.dataloader.classes == {"names": ["cat", "dog"], "ids": [4, 9]}
    (record,) = load_records(cfg.dataloader.train.dataset.names, filter_empty=False)
    assert record["file_name"] == str(folder / "a.png") and record["annotations"][0]["category_id"] == 1
    check_data(cfg)


def test_evaluates_on_the_training_data_without_others(cfg, folder):
    only = write(folder / "only.json", CONTENT)
    use_own_dataset(cfg, f"coco:{folder},{only}")
    assert cfg.dataloader.test.dataset.names == f"coco:{folder},{only}"


def test_folders_of_images_are_those_of_the_option(cfg, folder):
    """The same annotations of another folder's images are another data set."""
    only = write(folder / "only.json", CONTENT)
    (folder / "other").mkdir()
    use_own_dataset(cfg, f"coco:{folder},{only},{folder / 'other'},{only}")
    (record,) = load_records(cfg.dataloader.test.dataset.names, filter_empty=False)
    assert record["file_name"] == str(folder / "other" / "a.png")
    with pytest.raises(UserError, match="only.json: 1 of its 1 image files are missing, the first is .*other/a.png"):
        check_data(cfg)


def test_several_test_sets(cfg, folder):
    files = [write(folder / f"{name}.json", CONTENT) for name in "abc"]
    use_own_dataset(cfg, "coco:" + ",".join(f"{folder},{file}" for file in files))
    assert list(cfg.dataloader.test.dataset.names) == [f"coco:{folder},{file}" for file in files[1:]]
    check_data(cfg)


@pytest.mark.parametrize("option", ["coco:images", "csv:a,b", "coco:", "coco:a,b,c", "coco:a,,b,c", 'coco:"a,b'])
def test_malformed_option(cfg, option):
    with pytest.raises(UserError, match=f"^{option}: "):
        use_own_dataset(cfg, option)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "malformed JSON"), ({"images": [{}]}, "'categories'"), ("[]", "not COCO-format")],
)
def test_malformed_file(cfg, folder, content, reason):
    path = write(folder / "bad.json", content)
    with pytest.raises(UserError, match=f"bad.json: .*{reason}"):
        use_own_dataset(cfg, f"coco:{folder},{path}")


def test_missing_folder(cfg, folder):
    with pytest.raises(UserError, match="nowhere: no such folder of images"):
        use_own_dataset(cfg, f"coco:{folder}/nowhere,{write(folder / 'a.json', CONTENT)}")


def test_both_files_need_the_same_classes(cfg, folder):
    other = CONTENT | {"categories": [{"id": 9, "name": "dog"}]}
    train, val = write(folder / "a.json", CONTENT), write(folder / "b.json", other)
    with pytest.raises(UserError, match="both need the same categories"):
        use_own_dataset(cfg, f"coco:{folder},{train},{folder},{val}")


def test_masks_are_asked_for_before_the_training(cfg, folder):
    use_own_dataset(cfg, f"coco:{folder},{write(folder / 'a.json', CONTENT)}")
    cfg.dataloader.train.mapper.use_instance_mask = True
    with pytest.raises(UserError, match=r"a.json: annotations\[0\] of image a.png: it has no segmentation"):
        check_data(cfg)


def test_weights_of_classes_in_another_order(cfg, folder, monkeypatch):
    warnings = []
    monkeypatch.setattr(own_dataset.logger, "warning", lambda *args: warnings.append(args))
    use_own_dataset(cfg, f"coco:{folder},{write(folder / 'a.json', CONTENT)}")
    for name, names in (("same", ["cat", "dog"]), ("turned", ["dog", "cat"]), ("renamed", ["Cat", "Dog"])):
        torch.save({"model": {}, "classes": {"names": names, "ids": [1, 2]}}, folder / f"{name}.pth")
    check_classes(cfg, str(folder / "same.pth"))
    assert not warnings
    check_classes(cfg, str(folder / "renamed.pth"))
    assert len(warnings) == 1
    with pytest.raises(UserError, match="turned.pth: its classes are, in this order"):
        check_classes(cfg, str(folder / "turned.pth"))
