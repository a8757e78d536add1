import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from la_det.data.records import check_num_classes, check_records, load_records, summary
from la_det.errors import UserError


@pytest.fixture
def dataset():
    def annotation(**more):
        return {"bbox": [1, 1, 2, 2], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0} | more

    image = {"width": 8, "height": 8, "image_id": 0}
    annotations = [[annotation()], [], [annotation(iscrowd=1)], [annotation(bbox=[9, 9, 2, 2])]]
    records = [image | {"file_name": f"{i}.jpg", "annotations": a} for i, a in enumerate(annotations)]
    DatasetCatalog.register("records_test", lambda: records)
    MetadataCatalog.get("records_test").thing_classes = ["thing"]
    yield "records_test"
    DatasetCatalog.remove("records_test")
    MetadataCatalog.remove("records_test")


def test_filter_empty_leaves_out_images_without_objects(dataset):
    assert [r["file_name"] for r in load_records(dataset, filter_empty=True)] == ["0.jpg", "3.jpg"]
    assert [len(r["annotations"]) for r in load_records([dataset], filter_empty=False)] == [1, 0, 1, 0]


def test_unknown_data_set():
    with pytest.raises(UserError, match="no_such: no such data set"):
        load_records("no_such", filter_empty=False)


def test_missing_annotation_file(tmp_path):
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("missing_test", {}, str(tmp_path / "a.json"), str(tmp_path))
    try:
        with pytest.raises(UserError, match="a.json: no such file"):
            load_records("missing_test", filter_empty=False)
    finally:
        DatasetCatalog.remove("missing_test")
        MetadataCatalog.remove("missing_test")


def test_class_count_has_to_agree(dataset):
    check_num_classes(dataset, 1)
    with pytest.raises(UserError, match="set model.num_classes=1"):
        check_num_classes([dataset], 80)


@pytest.fixture
def file(tmp_path):
    """Two images, which are missing: one with an object, and one with a region to ignore. Neither has a mask."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in range(2)],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": i} for i in range(2)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return f"coco:{tmp_path},{tmp_path}/a.json"


def test_what_is_checked_before_a_model_is_built(dataset, file, tmp_path):
    with pytest.raises(UserError, match="a.json: 2 of its 2 image files are missing"):
        check_records([dataset, file], num_classes=1, masks=False)
    for i in range(2):
        (tmp_path / f"{i}.png").touch()
    check_records([dataset, file], num_classes=1, masks=False)
    with pytest.raises(UserError, match=r"a.json: annotations\[0\] of image 0.png: it has no segmentation"):
        check_records([file], num_classes=1, masks=True)
    with pytest.raises(UserError, match="set model.num_classes=1"):
        check_records([file], num_classes=80, masks=False)


def test_regions_of_images_that_are_left_out_are_not_counted(file):
    assert "1 objects of 1 classes:" in summary(load_records(file, filter_empty=True), ["thing"])
    records = load_records(file, filter_empty=False)
    assert "1 objects of 1 classes, 1 regions to ignore:" in summary(records, ["thing"])
    assert "0 objects of 1 classes, 1 regions" in summary(records.choose(np.array([False, True])), ["thing"])
