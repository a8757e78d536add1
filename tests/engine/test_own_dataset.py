import json

import pytest
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf

from la_det.data.records import load_records
from la_det.engine.own_dataset import use_own_dataset
from la_det.errors import UserError

CONTENT = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}],
    "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
}


@pytest.fixture
def cfg():
    loader = {"dataset": {"names": "coco_2017"}}
    return OmegaConf.create({"dataloader": {"train": loader, "test": loader}, "model": {"num_classes": 80}})


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_one_option_sets_data_and_classes(cfg, tmp_path):
    train, val = write(tmp_path / "train.json", CONTENT), write(tmp_path / "val.json", CONTENT)
    use_own_dataset(cfg, f"coco:{tmp_path},{train},{tmp_path},{val}")
    assert cfg.model.num_classes == 2
    assert cfg.dataloader.train.dataset.names == train and cfg.dataloader.test.dataset.names == val
    (record,) = load_records(train, filter_empty=False)
    assert record["file_name"] == str(tmp_path / "a.jpg") and record["annotations"][0]["category_id"] == 1
    use_own_dataset(cfg, f"coco:{tmp_path},{train},{tmp_path},{val}")  # again in the same process
    assert train in DatasetCatalog


def test_evaluates_on_the_training_data_without_others(cfg, tmp_path):
    only = write(tmp_path / "only.json", CONTENT)
    use_own_dataset(cfg, f"coco:{tmp_path},{only}")
    assert cfg.dataloader.test.dataset.names == only


@pytest.mark.parametrize("option", ["coco:images", "voc:a,b", "coco:", "coco:a,b,c", "coco:a,,b,c"])
def test_malformed_option(cfg, option):
    with pytest.raises(UserError, match="has the form coco:"):
        use_own_dataset(cfg, option)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "malformed JSON"), ({"images": []}, "'categories'"), ("[]", "not COCO-format")],
)
def test_malformed_file(cfg, tmp_path, content, reason):
    path = write(tmp_path / "bad.json", content)
    with pytest.raises(UserError, match=f"bad.json: .*{reason}"):
        use_own_dataset(cfg, f"coco:{tmp_path},{path}")


def test_missing_folder(cfg, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder of images"):
        use_own_dataset(cfg, f"coco:{tmp_path}/nowhere,{write(tmp_path / 'a.json', CONTENT)}")


def test_both_files_need_the_same_classes(cfg, tmp_path):
    other = CONTENT | {"categories": [{"id": 9, "name": "dog"}]}
    train, val = write(tmp_path / "a.json", CONTENT), write(tmp_path / "b.json", other)
    with pytest.raises(UserError, match="both files need the same categories"):
        use_own_dataset(cfg, f"coco:{tmp_path},{train},{tmp_path},{val}")
