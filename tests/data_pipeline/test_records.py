import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from la_det.data.records import check_num_classes, load_records
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
