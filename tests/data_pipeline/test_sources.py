import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from la_det.data.build import Options
from la_det.data.records import load_records
from la_det.data.sources import DataSource, is_source, labels_of, parse, parse_one, read_source, train_and_test
from la_det.data.voc import CORNERS
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


def test_a_registered_function_may_name_a_file_that_is_gone():
    """Such as the cache that COCOEvaluator names; only la_det's own readers need the file."""
    records = [{"file_name": "a.jpg", "image_id": 1, "height": 4, "width": 4, "annotations": []}]
    DatasetCatalog.register("of_a_function", lambda: records)
    try:
        MetadataCatalog.get("of_a_function").json_file = "/nowhere/gt.json"
        assert read_source("of_a_function") == records
    finally:
        DatasetCatalog.remove("of_a_function")
        MetadataCatalog.remove("of_a_function")


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
    with pytest.raises(UserError, match=reason) as error:
        parse(text)
    assert str(error.value).startswith(text), "names are not only written after --dataset"
    with pytest.raises(UserError, match="2 data sets in one name"):
        parse_one("coco:a,b,c,d")


class TestPathsForNames:
    """A path where a name is wanted gets the form that it has in a name."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("coco/good.json", "a, b.json", "data.yaml", "DATA.YML", "val.odgt", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "VOC2012/Annotations").mkdir(parents=True)

    @pytest.mark.parametrize(
        ("path", "form"),
        [
            ("coco/good.json", "coco:IMAGES,coco/good.json"),
            ("a, b.json", 'coco:IMAGES,"a, b.json"'),
            ("data.yaml", "yolo:data.yaml"),
            ("./DATA.YML", "yolo:./DATA.YML"),
            ("val.odgt", "odgt:IMAGES,val.odgt"),
            ("VOC2012", "voc:VOC2012"),
        ],
    )
    def test_of_files(self, path, form):
        for read in (read_source, parse):
            with pytest.raises(UserError) as error:
                read(path)
            assert str(error.value).startswith(f"{path}: ") and str(error.value).endswith(f"write {form}")

    @pytest.mark.parametrize("path", ["none.json", "notes.txt", "coco", "", "VOC2012/Annotations"])
    def test_of_other_paths(self, path):
        for read in (read_source, parse):
            with pytest.raises(UserError, match=r"coco:IMAGES,JSON.* \| yolo:DATA.yaml"):
                read(path)


def test_labels_are_short_and_different():
    names = ["coco:/a/x,/a/val.json", "coco:/b/x,/b/val.json", "yolo:/a/data.yaml,split=val", "coco_2017_val"]
    assert labels_of(names) == ["val_1", "val_2", "data_val", "coco_2017_val"]


@pytest.mark.parametrize(
    "files", [("a/val", "b/val", "c/val_1"), ("c/val_2", "a/val", "b/val"), ("a/val", "b/val", "c/val_1", "d/val_1")]
)
def test_labels_with_numbers_are_different(files):
    labels = labels_of([f"coco:/images,/{file}.json" for file in files])
    assert len(set(labels)) == len(files) and all(label.startswith("val_") for label in labels)


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


class TestIsReadAgainIfItChanges:
    """Each step changes one file of a data set of other files than the one in its name."""

    def boxes(self, name: str) -> list[int]:
        return [len(record["annotations"]) for record in read_source(name)]

    def test_yolo(self, tmp_path):
        for folder in ("images/sub", "labels/sub"):
            (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images/sub/a.png")
        (tmp_path / "list.txt").write_text("images/sub/a.png\n")
        (tmp_path / "data.yaml").write_text("train: [images, list.txt]\nnames: [nut]\n")
        name = f"yolo:{tmp_path}/data.yaml,split=train"
        assert self.boxes(name) == [0] and read_source(name) is read_source(name)
        (tmp_path / "labels/sub/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        assert self.boxes(name) == [1] and read_source(name) is read_source(name)
        (tmp_path / "labels/sub/a.txt").write_text("0 0.5 0.5 0.5 0.5\n" * 2)
        assert self.boxes(name) == [2]
        Image.new("RGB", (8, 4)).save(tmp_path / "images/sub/a.png")
        assert read_source(name)[0]["width"] == 8
        Image.new("RGB", (4, 4)).save(tmp_path / "images/sub/b.png")
        assert self.boxes(name) == [2, 0]
        Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
        (tmp_path / "list.txt").write_text("c.png\n")
        assert self.boxes(name) == [0, 2, 0]

    def test_voc(self, tmp_path):
        def write(name: str, objects: int, size: str = "") -> None:
            corners = "".join(f"<{key}>{x}</{key}>" for key, x in zip(CORNERS, (1, 1, 3, 3), strict=True))
            found = f"<object><name>nut</name><bndbox>{corners}</bndbox></object>" * objects
            (tmp_path / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{found}</annotation>")

        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / f"JPEGImages/{i}.jpg")
        write("0", 1)
        (tmp_path / "ImageSets/Main/train.txt").write_text("0\n")
        name = f"voc:{tmp_path},split=train"
        assert self.boxes(name) == [1] and read_source(name) is read_source(name)
        write("0", 2)
        assert self.boxes(name) == [2] and read_source(name) is read_source(name)
        write("1", 3)
        (tmp_path / "ImageSets/Main/train.txt").write_text("0\n1\n")
        assert self.boxes(name) == [2, 3]
        Image.new("RGB", (8, 4)).save(tmp_path / "JPEGImages/1.jpg")
        assert [record["width"] for record in read_source(name)] == [4, 8]


def test_options_of_registered_data(file, tmp_path):
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("registered_here", {}, str(file), str(tmp_path))
    try:
        for number in (1, 2):
            (record,) = load_records('registered:registered_here,"class=dog, big"', filter_empty=True)
            assert [a["category_id"] for a in record["annotations"]] == [0] * number
            file.write_text(json.dumps(CONTENT | {"annotations": CONTENT["annotations"] * 2}))  # it is read again
        with pytest.raises(UserError, match="options are only for data sets in COCO's form"):
            read_source("registered:unheard_of,class=a")
    finally:
        DatasetCatalog.remove("registered_here")
        MetadataCatalog.remove("registered_here")


def test_functions_of_others_that_fail_are_named():
    DatasetCatalog.register("failing", lambda: [][0])
    DatasetCatalog.register("lost", lambda: open("nowhere.txt").close())
    DatasetCatalog.register("odd", lambda: [{"file_name": "odd", "height": 4, "width": 4, "annotations": [{}]}])
    try:
        for name in ("failing", "odd", "lost"):
            with pytest.raises(UserError, match=f"{name}: "):
                load_records(name, filter_empty=False)
    finally:
        DatasetCatalog.remove("lost")
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
