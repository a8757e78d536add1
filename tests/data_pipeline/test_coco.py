import json
import logging
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from PIL import Image

from la_det.data.boxes import FRACTIONS
from la_det.data.build import Options
from la_det.data.coco import read_coco
from la_det.data.sources import read_source
from la_det.errors import UserError

SQUARE = [[10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0]]


def rle(height: int = 48, width: int = 64) -> dict:
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[5:30, 7:40] = 1
    code = pycocotools.mask.encode(mask)
    return code | {"counts": code["counts"].decode()}


def content() -> dict:
    """Two images with three objects and a crowd region; classes and images are not in the order of their ids."""
    boxes = [(7, 9, [10, 10, 10, 10]), (7, 4, [0.5, 1.25, 30, 20]), (3, 9, [40, 30, 24, 18]), (3, 4, [1, 1, 8, 8])]
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 3, "file_name": "b.png", "width": 64, "height": 48},
        ],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": c, "bbox": box, "area": 90 + i, "iscrowd": int(i == 3)}
            for i, (image, c, box) in enumerate(boxes)
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
    }


def read(tmp_path: Path, data: object, **options: object):
    path = tmp_path / "a.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_coco(str(path), str(tmp_path), Options(**options))


def changed(where: str, value: object) -> dict:
    """The content with one value replaced or, by ..., removed; `where` is like "annotations.1.bbox"."""
    data = content()
    *path, key = [int(part) if part.isdigit() else part for part in where.split(".")]
    node = data
    for part in path:
        node = node[part]
    if value is ...:
        del node[key]
    else:
        node[key] = value
    return data


def test_records_are_detectron2s(tmp_path):
    data = content()
    data["annotations"][0]["segmentation"] = SQUARE
    data["annotations"][2]["segmentation"] = rle()
    data["annotations"][3]["segmentation"] = {"size": [48, 64], "counts": [100, 20, 48 * 64 - 120]}
    records = read(tmp_path, data)
    expected = load_coco_json(str(tmp_path / "a.json"), str(tmp_path), "of_detectron2")
    for annotation in expected[0]["annotations"]:  # of other lists Detectron2 makes bytes
        if isinstance(annotation.get("segmentation"), dict):
            counts = annotation["segmentation"]["counts"]
            annotation["segmentation"]["counts"] = counts.decode() if isinstance(counts, bytes) else counts
    assert list(records) == expected
    assert records.classes == tuple(MetadataCatalog.get("of_detectron2").thing_classes) == ("cat", "dog")
    assert records.areas.tolist() == [92, 93, 90, 91]
    MetadataCatalog.remove("of_detectron2")


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("images.1.id", 7, r"images\[1\]: id 7 is also that of images\[0\]"),
        ("images.1.id", True, r"images\[1\]: id is True"),
        ("images.1.id", None, r"images\[1\]: id is None"),
        ("images.1.id", [1], r"images\[1\]: id is \[1\]"),
        ("images.1.id", ..., r"images\[1\]: id is missing"),
        ("images.1.id", float("nan"), r"images\[1\]: id is nan"),
        ("images.1.width", "64", "id 3: width is '64'"),
        ("images.1.width", 0, "id 3: width is 0"),
        ("images.1.height", 48.5, "id 3: height is 48.5"),
        ("images.1.height", [], r"id 3: height is \[\]"),
        ("images.1.height", 10**400, "id 3: height is 1000"),
        ("images.1.file_name", 5, "id 3: file_name is 5"),
        ("images.1.file_name", ..., "id 3: file_name is missing"),
        ("images.1.file_name", "", "image '': no file can have this name"),
        ("images.1.file_name", "a\0b", r"image 'a\\x00b': no file can have this name"),
        ("images.1.file_name", "\ud800", r"image '\\ud800': no file can have this name"),
        ("images.1.file_name", "../b.png", "image '../b.png': this path leaves the folder"),
        ("images.1.file_name", "/etc/passwd", "image '/etc/passwd': this path leaves the folder"),
        ("images.1", 3, r"images\[1\] is 3 instead of an object"),
        ("images", [], r"'images' is \[\] instead of a list"),
        ("images", {}, "'images' is {} instead of a list"),
        ("categories.1.id", 9, r"categories\[1\]: id 9 is also that of categories\[0\]"),
        ("categories.1.name", 1, "category with id 4: name is 1"),
        ("categories.1.name", None, "category with id 4: name is None"),
        ("categories.1.name", "a\0", "category with id 4: name is"),
        ("categories.1.name", "\udfff", "category with id 4: name is"),
        ("categories", [], r"'categories' is \[\]"),
        ("categories", ..., "'categories' is missing"),
        ("annotations", {}, "'annotations' is {} instead of a list of objects"),
        ("annotations", "", "'annotations' is '' instead"),
        ("annotations", None, "'annotations' is None instead"),
        ("annotations.1", [], r"annotations\[1\] is \[\] instead"),
        ("annotations.1.image_id", "7", r"annotations\[1\] \(id 2, image_id '7'\): image_id and the ids of images"),
        ("annotations.1.image_id", {}, r"annotations\[1\] .*image_id is neither"),
        ("annotations.1.image_id", ..., r"annotations\[1\] .*image_id is neither"),
        ("annotations.1.category_id", 5, r"annotations\[1\] .*category_id 5: there is no such category"),
        ("annotations.1.category_id", None, r"annotations\[1\] .*category_id is neither"),
        ("annotations.1.bbox", ..., r"annotations\[1\] .*bbox is missing: not four numbers"),
        ("annotations.1.bbox", [], r"annotations\[1\] .*bbox is \[\]"),
        ("annotations.1.bbox", {"x": 1}, r"annotations\[1\] .*bbox is {"),
        ("annotations.1.bbox", [1, 2, "3", 4], r"annotations\[1\] .*bbox is \[1, 2, '3', 4\]"),
        ("annotations.1.bbox", [1, 2, 3, True], r"annotations\[1\] .*bbox is \[1, 2, 3, True\]"),
        ("annotations.1.bbox", [1, 2, 3, 10**400], r"annotations\[1\] .*bbox is"),
        ("annotations.1.bbox", [1, 2, 10**30, 4], r"annotations\[1\] .*a coordinate beyond 1e\+07"),
        ("annotations.1.iscrowd", -1, r"annotations\[1\] .*iscrowd is -1: neither 0 nor 1"),
        ("annotations.1.iscrowd", "0", r"annotations\[1\] .*iscrowd is '0'"),
        ("annotations.1.iscrowd", [], r"annotations\[1\] .*iscrowd is \[\]"),
        ("annotations.1.ignore", 1, r"annotations\[1\] .*ignore is 1: what is to be ignored has iscrowd 1"),
        ("annotations.1.area", "9", r"annotations\[1\] .*area is '9'"),
        ("annotations.1.area", -1, r"annotations\[1\] .*area is -1"),
    ],
)
def test_what_is_surely_wrong_stops(tmp_path, where, value, reason):
    with pytest.raises(UserError, match=f"^{tmp_path}/a.json: .*{reason}") as error:
        read(tmp_path, changed(where, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "malformed JSON"),
        ("", "malformed JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[]", r"it holds \[\] instead of an object"),
        ("9" * 5000, "malformed JSON"),
    ],
)
def test_files_that_are_no_json(tmp_path, text, reason):
    with pytest.raises(UserError, match=f"a.json: .*{reason}"):
        read(tmp_path, text)


def test_several_kinds_are_named_with_their_number(tmp_path):
    data = content()
    for annotation in data["annotations"]:
        annotation["bbox"] = None
    data["annotations"][2]["iscrowd"] = 7
    with pytest.raises(UserError, match=r"annotations\[0\].*and 3 more: .*annotations\[2\] .* \| .*iscrowd is 7"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("annotations.1.id", 0),
        ("annotations.1.id", ...),
        ("annotations.1.id", []),
        ("annotations.1.id", 1),
        ("annotations.1.id", 10**30),
        ("annotations.1.iscrowd", None),
        ("annotations.1.iscrowd", ...),
        ("annotations.1.iscrowd", False),
        ("annotations.1.image_id", 7.0),
        ("images.0.width", 64.0),
        ("annotations.1.segmentation", None),
        ("annotations.1.segmentation", []),
    ],
)
def test_what_changes_nothing(tmp_path, where, value):
    assert list(read(tmp_path, changed(where, value))) == list(read(tmp_path, content()))


def test_ids_of_any_kind_are_handed_on(tmp_path):
    for image_ids, category_ids in (
        (["shot_1", "000002"], ["n01", "n02"]),
        ([2**60 + 1, 2**53 + 1], [2**70, 0]),
        ([0.5, -3], ["9", 9]),
    ):
        data = content()
        for image, category, i, c in zip(data["images"], data["categories"], image_ids, category_ids, strict=True):
            image["id"], category["id"] = i, c
        images, categories = dict(zip((7, 3), image_ids, strict=True)), dict(zip((9, 4), category_ids, strict=True))
        for annotation in data["annotations"]:
            annotation["image_id"] = images[annotation["image_id"]]
            annotation["category_id"] = categories[annotation["category_id"]]
        records = read(tmp_path, data)
        assert {record["file_name"][-5:]: record["image_id"] for record in records} == {
            "a.png": image_ids[0],
            "b.png": image_ids[1],
        }
        assert dict(zip(records.classes, records.class_ids, strict=True)) == {
            "dog": category_ids[0],
            "cat": category_ids[1],
        }
        by_file = {record["file_name"][-5:]: record["annotations"] for record in records}
        assert [records.classes[a["category_id"]] for a in by_file["a.png"]] == ["dog", "cat"]


def test_missing_areas_are_those_of_masks_or_boxes(tmp_path):
    data = content()
    for annotation in data["annotations"]:
        del annotation["area"]
    data["annotations"][0]["segmentation"] = [[10, 10, 20, 10, 20, 20]]
    data["annotations"][1]["area"] = None
    areas = read(tmp_path, data).areas
    assert areas[2] < 70 and areas.tolist()[:2] + areas.tolist()[3:] == [24 * 18, 64, 600]


def test_missing_sizes_are_those_of_the_files(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "b.png")
    data = changed("images.1.width", None)
    assert list(read(tmp_path, data)) == list(read(tmp_path, content()))
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match="a.json: image with id 3 has no height and width; .*b.png: cannot read"):
        read(tmp_path, data)


def test_what_can_be_dropped_is_counted(tmp_path, caplog):
    data = content()
    data["annotations"][0]["bbox"] = [10, 10, 0, 5]
    data["annotations"][1]["bbox"] = [100, 10, 5, 5]
    data["annotations"] += [data["annotations"][2] | {"bbox": [5, 5, x, 5]} for x in (float("nan"), float("inf"))]
    data["annotations"].append(data["annotations"][2] | {"image_id": 99})
    records = read(tmp_path, data)
    assert records.counts().tolist() == [2, 0]
    with caplog.at_level(logging.WARNING):
        records.problems.log()
    assert sum(problem.dropped for problem in records.problems.found) == 5
    assert [r.message.count("a.json") for r in caplog.records] == [1, 1]
    # As in Detectron2, an image whose only objects were dropped is one with objects.
    assert len(records.with_objects()) == 2


def test_no_usable_box_stops(tmp_path):
    data = content()
    for annotation in data["annotations"]:
        annotation["bbox"] = [10, 10, -3, 5]
    with pytest.raises(UserError, match="no box at all is finite and has an area"):
        read(tmp_path, data)


def test_annotations_of_other_images_only_stop(tmp_path):
    data = content()
    for annotation in data["annotations"]:
        annotation["image_id"] += 1000
    with pytest.raises(UserError, match="no image has this id, nor that of any other annotation"):
        read(tmp_path, data)


@pytest.mark.parametrize("written", ["xyxy", "xywh_fractions", "xyxy_fractions", "cxcywh_fractions"])
def test_boxes_of_another_convention_are_asked_about_and_converted(tmp_path, written):
    data = content()
    truth = np.array([[8, 6, 16, 12], [32, 24, 16, 12], [40, 30, 24, 18], [16, 12, 32, 24]], dtype=float)
    corners = np.concatenate((truth[:, :2], truth[:, :2] + truth[:, 2:]), axis=1)
    centred = np.concatenate((truth[:, :2] + truth[:, 2:] / 2, truth[:, 2:]), axis=1)
    boxes = {"xyxy": corners, "xywh": truth, "cxcywh": centred}[written.split("_")[0]]
    if written.endswith("fractions"):
        boxes = boxes / [64, 48, 64, 48]
    for annotation, box in zip(data["annotations"], boxes.tolist(), strict=True):
        annotation["bbox"] = box
    with pytest.raises(UserError, match=r"a.json: annotations\[.* add ,boxes=xy"):
        read(tmp_path, data)
    order = [2, 3, 0, 1]
    assert np.allclose(read(tmp_path, data, boxes=written).boxes, truth[order])
    if written.endswith("fractions"):
        assert np.allclose(read(tmp_path, data, boxes="xywh").boxes, boxes[order])


@pytest.mark.parametrize("written", FRACTIONS)
def test_outlines_in_fractions_are_converted_with_the_boxes(tmp_path, written):
    """The last box is that of a run-length encoded mask, and the third has its outline in pixels."""
    data = content()
    for annotation in data["annotations"]:
        annotation |= {"bbox": [0.25, 0.25, 0.5, 0.5], "area": 0.25, "segmentation": [[0.25, 0.5, 0.5, 0.5, 0.5, 1]]}
    data["annotations"][1]["segmentation"].append([0, 0, 1, 0, 1, 1])
    data["annotations"][2]["segmentation"] = SQUARE
    data["annotations"][3]["segmentation"] = rle()
    records = read(tmp_path, data, boxes=written)
    assert not [problem for problem in records.problems.found if "segmentation" in problem.kind]
    first = [16, 24, 32, 24, 32, 48]
    assert [[a["segmentation"] for a in r["annotations"]] for r in records] == [
        [SQUARE, rle()],
        [[first], [first, [0, 0, 64, 0, 64, 48]]],
    ]
    triangle = pycocotools.mask.area(pycocotools.mask.frPyObjects([first], 48, 64))[0]
    assert records.areas[:3].tolist() == [100, 25 * 33, triangle] and triangle > 150
    assert read(tmp_path, data, boxes="xywh").areas.tolist() == [0.25] * 4


@pytest.mark.parametrize("written", ["xyxy", "pixels"])
def test_areas_that_were_computed_from_corners_as_sizes_are_not_used(tmp_path, written):
    data = content()
    for annotation in data["annotations"]:
        annotation |= {"bbox": [10, 20, 30, 40], "area": 1200}
    data["annotations"][1]["area"] = 77
    data["annotations"][2]["segmentation"] = SQUARE
    box = {"xyxy": 20 * 20, "pixels": 21 * 21}[written]
    assert read(tmp_path, data, boxes=written).areas.tolist() == [100, box, box, 77]
    assert read(tmp_path, data, boxes="xywh").areas.tolist() == [1200, 1200, 1200, 77]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([[1, 2, 3, 4]], "no list of polygons"),
        ([[]], "no list of polygons"),
        ([1, 2, 3, 4, 5, 6], "no list of polygons"),
        ([[1, 2, 3, 4, 5, "6"]], "no list of polygons"),
        ([[1, 2, 3, 4, 5, 6, 7]], "no list of polygons"),
        ("polygon", "no list of polygons"),
        ({"size": [32, 32], "counts": "abc"}, "has another size"),
        ({"size": [48, 64], "counts": "no code~"}, "no run-length encoding"),
        ({"size": [48, 64], "counts": rle(48, 65)["counts"]}, "no run-length encoding"),
        ({"size": [48, 64], "counts": [1, 2, 3]}, "no run-length encoding"),
        ({"size": [48, 64], "counts": [-1, 48 * 64 + 1]}, "no run-length encoding"),
        ({"size": [48, 64], "counts": "o" * 50}, "no run-length encoding"),
        ({"size": [48, 64]}, "no run-length encoding"),
        ({"counts": "abc"}, "no run-length encoding"),
    ],
)
def test_unusable_masks_leave_their_boxes(tmp_path, value, reason):
    records = read(tmp_path, changed("annotations.1.segmentation", value))
    assert records.counts().sum() == 4 and not any("segmentation" in a for r in records for a in r["annotations"])
    (problem,) = records.problems.found
    assert reason in problem.kind and problem.dropped == 0
    with pytest.raises(
        UserError, match=r"a.json: annotations\[0\] of image a.png: it has no segmentation, and this model"
    ):
        records.require_masks()


def test_usable_polygons_beside_others_are_kept(tmp_path):
    data = changed("annotations.1.segmentation", [[1, 2, 3, 4], SQUARE[0], []])
    records = read(tmp_path, data)
    assert records[1]["annotations"][1]["segmentation"] == SQUARE
    assert "some of its polygons" in records.problems.found[0].kind


def test_random_masks_are_read_back(tmp_path):
    rng = np.random.default_rng(0)
    data = content()
    masks = []
    for annotation in data["annotations"] * 50:
        mask = np.asfortranarray((rng.random((48, 64)) < rng.choice([0.01, 0.5, 1.1])).astype(np.uint8))
        code = pycocotools.mask.encode(mask)
        masks.append(annotation | {"segmentation": code | {"counts": code["counts"].decode()}})
    data["annotations"] = masks
    records = read(tmp_path, data)
    assert not records.problems.found
    written = [a["segmentation"] for i in (3, 7) for a in masks if a["image_id"] == i]
    assert [a["segmentation"] for r in records for a in r["annotations"]] == written


def test_equal_names(tmp_path):
    data = content()
    data["categories"][1]["name"] = "dog"
    data["images"][1]["file_name"] = "a.png"
    records = read(tmp_path, data)
    assert records.classes == ("dog", "dog (id 9)")
    assert [problem.count for problem in records.problems.found] == [1, 1]


def test_a_subset_of_classes(tmp_path):
    records = read(tmp_path, content(), classes=("dog",))
    assert records.classes == ("dog",) and records.class_ids == (9,)
    assert [[a["category_id"] for a in r["annotations"]] for r in records] == [[0], [0]]
    with pytest.raises(UserError, match="class=bird: there is no such class; it has 'cat', 'dog'"):
        read(tmp_path, content(), classes=("bird",))


def test_without_annotations(tmp_path):
    records = read(tmp_path, changed("annotations", ...))
    assert not records.annotated and all("annotations" not in record for record in records)
    assert all(record["annotations"] == [] for record in read(tmp_path, changed("annotations", [])))


def test_registered_data_are_read_here(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(changed("annotations.1.segmentation", [[1, 2, 3, 4]])))
    register_coco_instances("registered_coco", {}, str(tmp_path / "a.json"), str(tmp_path))
    try:
        records = read_source("registered_coco")
        assert records.counts().tolist() == [2, 2]  # Detectron2 drops the object
        assert MetadataCatalog.get("registered_coco").thing_classes == ["cat", "dog"]
        assert read_source("registered_coco") is records
    finally:
        DatasetCatalog.remove("registered_coco")
        MetadataCatalog.remove("registered_coco")
