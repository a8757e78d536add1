import hashlib
import json
import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from pycocotools import mask as coco_mask

from la_det.data import shapes
from la_det.data.builtin import register_shapes
from la_det.data.shapes import SHAPES, ShapesSpec, annotate, draw_scene, make_shapes, remove_shapes

TINY = replace(SHAPES["shapes_tiny"], num_train=12, num_val=6)
CROWD = replace(SHAPES["shapes_crowd"], num_train=5, num_val=3)
FORK = multiprocessing.get_context("fork")  # the children inherit what a test has patched


def tight_box(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    left, top = columns.min(), rows.min()
    return [int(left), int(top), int(columns.max() - left + 1), int(rows.max() - top + 1)]


def file_hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def scenes(name: str, count: int) -> list[tuple]:
    return [draw_scene(SHAPES[name], "train", index) for index in range(count)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(TINY, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(CROWD, tmp_path_factory.mktemp("crowd"))


# What is drawn


def test_sizes_are_those_asked_for() -> None:
    def figures(spec: ShapesSpec) -> tuple:
        return spec.image_size, spec.num_train, spec.num_val, spec.max_objects, spec.min_extent, spec.max_extent

    assert figures(SHAPES["shapes_tiny"]) == (128, 1500, 300, 8, 10, 77)
    assert figures(SHAPES["shapes"]) == (256, 8000, 1000, 20, 10, int(0.6 * 256))
    assert figures(SHAPES["shapes_crowd"])[:3] == (256, 2000, 400)
    assert SHAPES["shapes"].classes == [
        *("disc", "triangle", "square", "pentagon", "hexagon", "star", "cross", "ellipse", "arrow", "crescent")
    ]
    assert len(SHAPES["shapes_crowd"].classes) == 1


@pytest.mark.parametrize("category", range(10))
@pytest.mark.parametrize("extent", [10, 11, 33, 77, 153])
def test_masks_are_tight_and_have_the_extent_at_any_rotation(category: int, extent: int) -> None:
    outline = list(shapes.OUTLINES.values())[category]
    for angle in np.linspace(0, 2 * np.pi, 37):
        (mask,) = shapes._rasterise([outline], extent, angle)
        assert tight_box(mask) == [0, 0, mask.shape[1], mask.shape[0]]
        assert max(mask.shape) == extent
        assert cv2.connectedComponents(mask)[0] == 2, "in one piece"


def test_rotation() -> None:
    arrow = [shapes.OUTLINES["arrow"]]
    (right,), (down,) = shapes._rasterise(arrow, 61, 0), shapes._rasterise(arrow, 61, np.pi / 2)
    assert right.shape == down.shape[::-1] and np.mean(np.rot90(right, -1) != down) < 0.03
    square = list(shapes.OUTLINES).index("square")
    items = [item for _, _, items in scenes("shapes", 40) for item in items if item.category == square]
    filled = np.array([item.mask.mean() for item in items])  # 1 upright, 0.5 standing on a corner
    assert len(filled) > 20 and filled.min() < 0.6 and filled.max() > 0.85


def test_the_crescent_and_the_arrow_are_what_they_are_called() -> None:
    # At rotation 0 both are symmetric about the horizontal axis; the crescent is hollow on the right.
    (crescent,) = shapes._rasterise([shapes.OUTLINES["crescent"]], 61, 0)
    (arrow,) = shapes._rasterise([shapes.OUTLINES["arrow"]], 61, 0)
    for mask in (crescent, arrow):
        assert np.mean(mask != mask[::-1]) < 0.03
    middle = crescent[crescent.shape[0] // 2]
    assert middle[1] and not middle[len(middle) // 2 :].any() and crescent[5, -10:].any()
    heights = arrow.sum(axis=0)
    assert heights[-1] <= 3 < heights[0] < heights.max() and heights.argmax() > 0.5 * arrow.shape[1]


@pytest.mark.parametrize("name", SHAPES)
def test_later_objects_occlude_earlier_ones_and_a_quarter_of_each_is_visible(name: str) -> None:
    for _, owner, items in scenes(name, 25):
        size = owner.shape[0]
        painted = np.zeros((3 * size, 3 * size), np.uint16)  # figures may reach beyond the image
        for number, item in enumerate(items, 1):
            x, y, width, height = item.box
            painted[size + y : size + y + height, size + x : size + x + width][item.mask > 0] = number
        painted = painted[size : 2 * size, size : 2 * size]
        labels = np.array([0] + [item.label for item in items])
        np.testing.assert_array_equal(labels[painted], owner)
        for number, item in enumerate(items, 1):
            assert np.sum(painted == number) >= 0.25 * item.mask.sum()


def test_objects_that_are_left_out_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_background", lambda size, rng: np.zeros((size, size, 3), np.float32))
    spec, left_out = replace(SHAPES["shapes"], seed=3), 0
    for index in range(20):
        image, owner, items = draw_scene(spec, "train", index)
        sampled = shapes._sample_shapes(spec, np.random.default_rng([3, 0, index]))
        left_out += len(sampled) - len(items)
        assert image[owner == 0].max(initial=0) < 60, "only pixel noise"
        if items:
            assert image[owner > 0].max(axis=1).mean() > 60
    assert left_out > 5


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_and_areas_are_those_of_disjoint_visible_masks(name: str) -> None:
    spec = SHAPES[name]
    for _, owner, items in scenes(name, 15):
        annotations, _ = annotate(owner, items, spec.crowd)
        covered = np.zeros(owner.shape, int)
        for annotation in annotations:
            mask = coco_mask.decode(annotation["segmentation"])
            covered += mask
            assert annotation["bbox_vis" if spec.crowd else "bbox"] == tight_box(mask)
            if not spec.crowd:
                assert annotation["area"] == mask.sum()
        assert covered.max(initial=0) <= 1
        np.testing.assert_array_equal(covered > 0, owner > 0)


def test_statistics_of_shapes_tiny() -> None:
    spec = SHAPES["shapes_tiny"]
    drawn = scenes("shapes_tiny", 400)
    annotations = [annotate(owner, items, False)[0] for _, owner, items in drawn]
    counts = np.array([len(found) for found in annotations])
    assert counts.max() == 8 and abs(counts.mean() - 4) < 0.4
    assert 0.05 < np.mean(counts == 0) < 0.2

    singles = [item for _, _, items in drawn for item in items if not item.group]
    extents = np.array([max(item.mask.shape) for item in singles])
    assert extents.min() == 10 and 70 < extents.max() <= 77
    assert abs(np.median(extents) - np.sqrt(10 * 77)) < 3, "log-uniform"
    boxes = np.array([item.box for _, _, items in drawn for item in items])
    assert boxes.min() >= 0 and (boxes[:, :2] + boxes[:, 2:]).max() <= spec.image_size
    per_class = np.bincount([item.category for item in singles], minlength=10)
    assert per_class.min() > 0.06 * len(singles)

    flat = [annotation for found in annotations for annotation in found]
    groups = sum(annotation["iscrowd"] for annotation in flat)
    assert 5 < groups < 0.04 * len(flat), "a few"


def test_a_group_is_one_crowd_annotation_of_several_objects() -> None:
    for _, owner, items in scenes("shapes_tiny", 150):
        annotations, _ = annotate(owner, items, False)
        members = [item for item in items if item.group]
        crowds = [annotation for annotation in annotations if annotation["iscrowd"]]
        assert len(crowds) == (1 if members else 0)
        if len(members) > 3:
            assert len({item.category + 1 for item in members} | {crowds[0]["category_id"]}) == 1
            assert len(annotations) == len(items) - len(members) + 1
            return
    pytest.fail("no group found")


def test_the_colour_does_not_tell_the_class() -> None:
    colours, categories = [], []
    for image, owner, items in scenes("shapes", 60):
        for item in items:
            if not item.group:
                colours.append(image[owner == item.label].mean(axis=0))
                categories.append(item.category)
    colours, categories = np.array(colours), np.array(categories)
    within = np.array([colours[categories == category].mean(axis=0) for category in range(10)])
    error = colours.std(axis=0) / np.sqrt(np.bincount(categories).min())
    assert np.all(np.abs(within - colours.mean(axis=0)) < 4 * error)
    assert colours.std(axis=0).min() > 50


def test_statistics_of_shapes_crowd() -> None:
    counted, ignored, beyond, empty, masks, clustered = [], 0, 0, 0, 0, []
    for _, owner, items in scenes("shapes_crowd", 120):
        annotations, gtboxes = annotate(owner, items, True)
        counted.append(sum(not annotation["iscrowd"] for annotation in annotations))
        ignored += sum(annotation["iscrowd"] for annotation in annotations)
        masks += sum(box["tag"] == "mask" for box in gtboxes)
        empty += not annotations
        for annotation in annotations:
            x, y, width, height = annotation["bbox"]
            vx, vy, vwidth, vheight = annotation["bbox_vis"]
            assert x <= vx and y <= vy and vx + vwidth <= x + width and vy + vheight <= y + height
            beyond += x < 0 or y < 0 or x + width > 256 or y + height > 256
        boxes = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
        overlaps = coco_mask.iou(boxes, boxes, [0] * len(boxes)) if len(boxes) else np.zeros((0, 0))
        clustered += np.any(overlaps - np.eye(len(boxes)) > 0.2, axis=1).tolist()
    assert 20 < np.mean(counted) < 26
    assert masks > 20 and ignored > 2 * masks, "crowds and hardly visible figures"
    assert beyond > 50 and empty > 0
    assert np.mean(clustered) > 0.4


def test_speed_at_128_pixels() -> None:
    started = time.process_time()  # of this process, whatever else the machine does
    for index in range(50):
        image, owner, items = draw_scene(SHAPES["shapes_tiny"], "val", index)
        cv2.imencode(".jpg", image)
        annotate(owner, items, False)
    assert 50 / (time.process_time() - started) > 100


# What is written


def test_files(tiny: Path) -> None:
    coco = json.loads((tiny / "annotations/train.json").read_text())
    assert [image["id"] for image in coco["images"]] == list(range(1, 13))
    assert len(list((tiny / "train").iterdir())) == 12 and len(list((tiny / "val").iterdir())) == 6
    for image in coco["images"]:
        data = (tiny / "train" / image["file_name"]).read_bytes()
        assert data.startswith(b"\xff\xd8\xff"), "a JPEG file"
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (image["height"], image["width"], 3)
        drawn = draw_scene(TINY, "train", image["id"] - 1)[0]
        assert np.abs(pixels.astype(float) - drawn).mean() < 12
    assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert [category["name"] for category in coco["categories"]] == TINY.classes


def test_same_seed_same_bytes(tiny: Path, tmp_path: Path) -> None:
    assert file_hashes(make_shapes(TINY, tmp_path / "again")) == file_hashes(tiny)
    assert file_hashes(make_shapes(TINY, tmp_path / "workers", workers=2)) == file_hashes(tiny)
    other = file_hashes(make_shapes(replace(TINY, seed=1), tmp_path / "seed"))
    assert not set(other.values()) & set(file_hashes(tiny).values())


def test_images_depend_on_nothing_but_their_index(tiny: Path, tmp_path: Path) -> None:
    more = file_hashes(make_shapes(replace(TINY, num_train=14), tmp_path))
    images = {path: digest for path, digest in file_hashes(tiny).items() if path.endswith(".jpg")}
    assert images.items() <= more.items()
    assert len(set(images.values())) == 18, "train and val differ"


def test_manifest_hash_is_that_of_the_files(tiny: Path) -> None:
    manifest = json.loads((tiny / "manifest.json").read_text())
    hashes = file_hashes(tiny)
    del hashes["manifest.json"]
    listing = "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes))
    assert manifest["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert manifest["version"] == shapes.VERSION and manifest["spec"]["seed"] == 0


def test_odgt_says_what_the_coco_file_says(crowd: Path) -> None:
    coco = json.loads((crowd / "annotations/train.json").read_text())
    lines = [json.loads(line) for line in (crowd / "annotations/train.odgt").read_text().splitlines()]
    assert [f"{line['ID']}.jpg" for line in lines] == [image["file_name"] for image in coco["images"]]
    seen = 0
    for image, line in zip(coco["images"], lines, strict=True):
        annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] == image["id"]]
        assert (crowd / "train" / f"{line['ID']}.jpg").is_file()
        for annotation, box in zip(annotations, line["gtboxes"], strict=True):
            assert (annotation["bbox"], annotation["bbox_vis"]) == (box["fbox"], box["vbox"])
            assert annotation["area"] == box["fbox"][2] * box["fbox"][3]
            assert annotation["category_id"] == 1
            ignored = box["tag"] != "person" or box["extra"].get("ignore", 0) != 0
            assert annotation["iscrowd"] == ignored
            if box["tag"] == "person":
                (hx, hy, hwidth, hheight), (x, y, width, height) = box["hbox"], box["fbox"]
                assert x <= hx and y <= hy and hx + hwidth <= x + width and hy + hheight <= y + 0.25 * height
            seen += 1
    assert seen == len(coco["annotations"]) > 20


# How it comes about


def test_an_existing_data_set_is_reused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_write_dataset", lambda *_: pytest.fail("generated again"))
    assert make_shapes(TINY, tiny.parent) == tiny


def test_another_version_is_refused_until_removed(tmp_path: Path) -> None:
    folder = make_shapes(TINY, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 0}))
    with pytest.raises(RuntimeError, match="version 0 instead of 1.*--force"):
        make_shapes(TINY, tmp_path)
    remove_shapes(TINY, tmp_path)
    assert not folder.exists()
    make_shapes(TINY, tmp_path)
    with pytest.raises(RuntimeError, match="num_train 12 instead of 13"):
        make_shapes(replace(TINY, num_train=13), tmp_path)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / TINY.name).mkdir()
    (tmp_path / TINY.name / "mine.txt").write_text("precious")
    for action in (make_shapes, remove_shapes):
        with pytest.raises(RuntimeError, match="no manifest.json"):
            action(TINY, tmp_path)
    assert (tmp_path / TINY.name / "mine.txt").read_text() == "precious"


def test_several_processes_at_once_generate_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset, barrier = shapes._write_dataset, FORK.Barrier(3)

    def write_and_tell(*args: object) -> None:
        (tmp_path / f"written-by-{os.getpid()}").touch()
        write_dataset(*args)

    def start() -> None:
        barrier.wait(30)
        make_shapes(TINY, tmp_path / "datasets")

    monkeypatch.setattr(shapes, "_write_dataset", write_and_tell)
    processes = [FORK.Process(target=start) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("written-by-*"))) == 1
    assert file_hashes(tmp_path / "datasets" / TINY.name) == file_hashes(tiny)


def test_another_host_may_be_first(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_write_dataset", lambda *_: shutil.copytree(tiny, tmp_path / TINY.name))
    assert make_shapes(TINY, tmp_path) == tmp_path / TINY.name
    assert {path.name for path in tmp_path.iterdir()} == {TINY.name, f".{TINY.name}.lock"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_generation_leaves_nothing(
    error: type[BaseException], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image = shapes._write_image

    def fail_in_val(spec: ShapesSpec, split: str, folder: Path, index: int) -> tuple:
        if (split, index) == ("val", 3):
            raise error
        return write_image(spec, split, folder, index)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "_write_image", fail_in_val)
        with pytest.raises(error):
            make_shapes(TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] in ([], [f".{TINY.name}.lock"])
    assert file_hashes(make_shapes(TINY, tmp_path)) == file_hashes(tiny)


def test_a_killed_generation_is_cleaned_up_by_the_next(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate_and_die() -> None:
        monkeypatch.setattr(os, "rename", lambda *_: os._exit(9))
        make_shapes(TINY, tmp_path)

    process = FORK.Process(target=generate_and_die)
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert not (tmp_path / TINY.name).exists() and list(tmp_path.glob("*.partial"))
    assert file_hashes(make_shapes(TINY, tmp_path)) == file_hashes(tiny)
    assert not list(tmp_path.glob("*.partial"))


# In Detectron2


def test_the_names_are_registered() -> None:
    assert "shapes_tiny_2k_train" not in DatasetCatalog.list()  # it has no images
    for name in SHAPES:
        for split in SHAPES[name].splits:
            metadata = MetadataCatalog.get(f"{name}_{split}")
            assert f"{name}_{split}" in DatasetCatalog.list()
            assert metadata.evaluator_type == "coco" and metadata.thing_classes == SHAPES[name].classes
            assert metadata.json_file.endswith(os.path.join(name, "annotations", f"{split}.json"))
            assert metadata.image_root.endswith(os.path.join(name, split))


@pytest.fixture
def registered(request: pytest.FixtureRequest, tmp_path: Path) -> ShapesSpec:
    spec = replace(TINY if request.param == "tiny" else CROWD, name=f"test_{request.param}")
    register_shapes(spec, tmp_path)
    yield spec
    for split in ("train", "val"):
        DatasetCatalog.remove(f"{spec.name}_{split}")
        MetadataCatalog.remove(f"{spec.name}_{split}")


@pytest.mark.parametrize("registered", ["tiny"], indirect=True)
def test_the_catalog_generates_at_first_use(registered: ShapesSpec, tmp_path: Path) -> None:
    assert not list(tmp_path.iterdir())
    records = DatasetCatalog.get("test_tiny_val")
    assert len(records) == 6 and all(Path(record["file_name"]).is_file() for record in records)
    metadata = MetadataCatalog.get("test_tiny_val")
    assert len(load_coco_json(metadata.json_file, metadata.image_root)) == 6, "a plain path"
    record = max(records, key=lambda record: len(record["annotations"]))
    instances = annotations_to_instances(
        [
            annotation
            | {"bbox": BoxMode.convert(annotation["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)}
            | {"bbox_mode": BoxMode.XYXY_ABS}
            for annotation in record["annotations"]
        ],
        (record["height"], record["width"]),
        mask_format="bitmask",
    )
    assert len(instances) > 2 and instances.gt_classes.max() < 10
    assert (instances.gt_masks.get_bounding_boxes().tensor == instances.gt_boxes.tensor).all()


@pytest.mark.parametrize("registered", ["tiny"], indirect=True)
def test_an_evaluator_may_be_built_first(registered: ShapesSpec, tmp_path: Path) -> None:
    evaluator = COCOEvaluator("test_tiny_train", output_dir=None)
    assert len(evaluator._coco_api.imgs) == 12
    assert (tmp_path / "test_tiny/manifest.json").is_file()


@pytest.mark.parametrize("registered", ["crowd"], indirect=True)
def test_a_crowd_carries_visible_boxes_and_an_odgt_file(registered: ShapesSpec) -> None:
    with PathManager.open(MetadataCatalog.get("test_crowd_val").odgt_file) as file:  # generates, too
        lines = [json.loads(line) for line in file]
    records = DatasetCatalog.get("test_crowd_val")
    assert [len(record["annotations"]) for record in records] == [len(line["gtboxes"]) for line in lines]
    annotations = [annotation for record in records for annotation in record["annotations"]]
    assert all(annotation["category_id"] == 0 and len(annotation["bbox_vis"]) == 4 for annotation in annotations)
    assert {annotation["iscrowd"] for annotation in annotations} == {0, 1}
