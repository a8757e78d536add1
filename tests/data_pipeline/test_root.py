"""Data sets that are registered here and in Detectron2, of which no file is there."""

import os
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from la_det.data.records import load_records
from la_det.data.root import DATASETS_ROOT, why_missing
from la_det.data.sources import missing
from la_det.errors import UserError

ROOT = "DETECTRON2_DATASETS to the folder that has"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A place without data, unless $DETECTRON2_DATASETS names a folder that has them."""
    monkeypatch.chdir(tmp_path)
    if any((DATASETS_ROOT / folder).exists() for folder in ("coco", "CrowdHuman", "VOC2007", "cityscapes")):
        pytest.skip("the data are there")


@pytest.mark.parametrize(
    ("name", "title", "folder"),
    [
        ("coco_2017_val", "COCO", "coco"),
        ("coco_2014_train", "COCO", "coco"),
        ("keypoints_coco_2017_val", "COCO", "coco"),
        ("registered:coco_2017_val,class=person", "COCO", "coco"),
        ("crowdhuman_val", "CrowdHuman", "CrowdHuman"),
        ("voc_2007_train", "VOC2007", "VOC2007"),
        ("cityscapes_fine_instance_seg_val", "cityscapes", "cityscapes"),
        ("lvis_v1_val", "lvis", "lvis"),
    ],
)
def test_the_error_says_where_it_is_looked_for_and_what_to_set(name, title, folder):
    with pytest.raises(UserError) as error:
        load_records(name, filter_empty=False)
    place = os.path.abspath(DATASETS_ROOT / folder)
    expected = f"{title} is looked for in {place}, which does not exist; set {ROOT} {folder}/"
    assert str(error.value) == f"{name.removeprefix('registered:').partition(',')[0]}: {expected}"


def test_a_folder_that_lacks_a_file():
    (DATASETS_ROOT / "coco").mkdir(parents=True)
    file = MetadataCatalog.get("coco_2017_val").json_file
    assert f"/coco, which has no annotations/instances_val2017.json; set {ROOT} coco/" in why_missing(file)


def test_nothing_is_missing_of_shapes_which_are_drawn_at_first_use(tmp_path):
    assert missing("shapes_tiny_train") == missing("shapes_crowd_odgt_val") == ""
    assert not list(tmp_path.iterdir())


def test_what_is_missing_of_any_data_set(tmp_path):
    file, images = tmp_path / "a.json", tmp_path / "images"
    register_coco_instances("missing_here", {}, str(file), str(images))
    try:
        for name in ("missing_here", f"coco:{images},{file}", "registered:missing_here,class=a"):
            paths = [file, images] if "coco:" not in name else [images, file]
            for path in paths:
                assert missing(name) == f"{path}: no such file or folder; check the path"
                path.mkdir()
            assert missing(name) == ""
            for path in paths:
                Path.rmdir(path)
    finally:
        DatasetCatalog.remove("missing_here")
        MetadataCatalog.remove("missing_here")
    assert missing("no_such") == "", "reading says so"
