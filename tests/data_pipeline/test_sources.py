import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from la_det.data.build import Options
from la_det.data.records import load_records
from la_det.data.sources import DataSource, is_source, labels_of, parse, parse_one, read_source, train_and_test
from la_det.errors import UserError

CONTENT = {
    "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": c, "bbox": [0, 0, 2, 2]} for c in (4, 9)],
    "categories": [{"id": 9, "name": "dog, big"}, {"id": 4, "name": "cat"}],
}


@pytest.mark.parametrize(
    "source",
    [
        DataSource("coco", ("/images", "/a.json")),
        DataSource("coco", ("/im, ages", '/a "b".json'), Options(boxes="xyxy", classes=("dog, big", "a=b"))),
        DataSource("odgt", ("/images", "/größe (1).odgt"), Options(tag="pedestrian")),
        DataSource("yolo", ("/epoch=1/data.yaml",), Options(split="val")),
        DataSource("registered", ("coco_2017_val",), Options(classes=("person",))),
    ],
)
def test_a_name_says_everything(source):
    assert parse(str(source)) == [source] and is_source(str(source))


def test_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_one("coco:images,~/a.json").paths == (f"{tmp_path}/images", "/home/me/a.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("csv:a", "it has the form"),
        ("coco:a", "it has the form"),
        ("coco:a,b,boxes=corners", "boxes=corners is none of xywh, xyxy"),
        ("coco:a,b,boxes=xyxy,boxes=xywh", "boxes is there 2 times"),
        ('coco:"a,b', "a path with a comma stands in double quotes"),
        ("yolo:", "it has the form"),
    ],
)
def test_malformed_names(text, reason):
    with pytest.raises(UserError, match=reason):
        parse(text)
    with pytest.raises(UserError, match="2 data sets in one name"):
        parse_one("coco:a,b,c,d")


def test_labels_are_short_and_different():
    names = ["coco:/a/x,/a/val.json", "coco:/b/x,/b/val.json", "yolo:/a/data.yaml,split=val", "coco_2017_val"]
    assert labels_of(names) == ["val_1", "val_2", "data_val", "coco_2017_val"]


def test_first_trains_and_the_others_test():
    train, tests = train_and_test("coco:a,b,c,d,e,f")
    assert [source.paths[1][-1] for source in (train, *tests)] == ["b", "d", "f"]
    train, tests = train_and_test("coco:a,b")
    assert tests == [train]


@pytest.fixture
def file(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    return tmp_path / "a.json"


def test_is_read_once_until_it_changes(file, tmp_path):
    name = f"coco:{tmp_path},{file}"
    records = read_source(name)
    assert read_source(name) is records and MetadataCatalog.get(name).thing_classes == ["cat", "dog, big"]
    file.write_text(json.dumps(CONTENT | {"annotations": [], "categories": [{"id": 1, "name": "mouse"}]}))
    assert len(read_source(name).labels) == 0 and MetadataCatalog.get(name).thing_classes == ["mouse"]


def test_options_of_registered_data(file, tmp_path):
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("registered_here", {}, str(file), str(tmp_path))
    try:
        (record,) = load_records('registered:registered_here,"class=dog, big"', filter_empty=True)
        assert [a["category_id"] for a in record["annotations"]] == [0]
        with pytest.raises(UserError, match="options are only for data sets in COCO's form"):
            read_source("registered:unheard_of,class=a")
    finally:
        DatasetCatalog.remove("registered_here")
        MetadataCatalog.remove("registered_here")


def test_functions_of_others_that_fail_are_named():
    DatasetCatalog.register("failing", lambda: [][0])
    DatasetCatalog.register("odd", lambda: [{"file_name": "odd", "height": 4, "width": 4, "annotations": [{}]}])
    try:
        for name in ("failing", "odd"):
            with pytest.raises(UserError, match=f"{name}: "):
                load_records(name, filter_empty=False)
    finally:
        DatasetCatalog.remove("failing")
        DatasetCatalog.remove("odd")


def test_several_data_sets_are_joined(file, tmp_path):
    other = tmp_path / "b.json"
    other.write_text(file.read_text())
    names = [f"coco:{tmp_path},{path}" for path in (file, other)]
    records = load_records(names, filter_empty=True)
    assert len(records) == 2 and list(records) == [records[0], records[-1]] and records[:1] == [records[0]]
    other.write_text(json.dumps(CONTENT | {"categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}]}))
    with pytest.raises(UserError, match="they need the same ones"):
        load_records(names, filter_empty=True)
