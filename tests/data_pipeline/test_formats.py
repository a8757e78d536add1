"""The same annotations in every form that is read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf
from PIL import Image

from la_det.data.loader import build_train_loader
from la_det.data.mapper import DatasetMapper
from la_det.data.records import load_records
from la_det.engine.own_dataset import check_data, use_own_dataset

TINY = Path(__file__).parents[1] / "cli" / "configs" / "tiny_poto.py"
SIZE, CLASSES, NUM_IMAGES = 256, ["bolt", "nut"], 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with integer boxes as COCO, YOLO and VOC; the last few have no object."""
    root = tmp_path_factory.mktemp("formats")
    for name in ("images", "labels"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    images, annotations, odgt = [], [], []
    for i in range(NUM_IMAGES):
        name = f"{i:03d}"
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(root / f"images/{name}.png")
        images.append({"id": 100 + i, "file_name": f"{name}.png", "width": SIZE, "height": SIZE})
        lines, objects, gtboxes = [], "", []
        for _ in range(0 if i > 26 else rng.integers(1, 8)):
            w, h = rng.integers(1, 90, 2).tolist()
            x, y = rng.integers(0, SIZE - w + 1), rng.integers(0, SIZE - h + 1)
            x, y, label = int(x), int(y), int(rng.integers(2))
            box = {"bbox": [x, y, w, h], "image_id": 100 + i, "category_id": label, "id": len(annotations)}
            annotations.append(box)
            lines.append(f"{label} {(x + w / 2) / SIZE!r} {(y + h / 2) / SIZE!r} {w / SIZE!r} {h / SIZE!r}")
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + w, y + h), strict=True)
            bndbox = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
            objects += f"<object><name>{CLASSES[label]}</name><bndbox>{bndbox}</bndbox></object>"
            gtboxes.append({"tag": "person", "fbox": [x, y, w, h]})
        if lines:
            (root / f"labels/{name}.txt").write_text("\n".join(lines))
        (root / f"images/{name}.xml").write_text(
            f"<annotation><size><width>{SIZE}</width><height>{SIZE}</height></size>{objects}</annotation>"
        )
        odgt.append(json.dumps({"ID": name, "gtboxes": gtboxes}))
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco.json").write_text(json.dumps(content))
    (root / "data.yaml").write_text(f"train: images\nval: images\nnames: {CLASSES}\n")
    (root / "a.odgt").write_text("\n".join(odgt))
    return root


def without_id(name: str) -> list[dict]:
    """The records; an image's id is what its source calls it."""
    return [{k: v for k, v in record.items() if k != "image_id"} for record in load_records(name, filter_empty=False)]


def names(folder: Path) -> dict[str, str]:
    return {
        "coco": f"coco:{folder}/images,{folder}/coco.json",
        "yolo": f"yolo:{folder}/data.yaml,split=train",
        "voc": f"voc:{folder}/images",
        "odgt": f"odgt:{folder}/images,{folder}/a.odgt",
    }


def test_records_are_equal(folder: Path) -> None:
    records = {kind: without_id(name) for kind, name in names(folder).items()}
    assert len(records["coco"]) == NUM_IMAGES and sum(len(r["annotations"]) for r in records["coco"]) > 80
    assert records["yolo"] == records["voc"] == records["coco"]
    boxes = {kind: [[a["bbox"] for a in r["annotations"]] for r in records[kind]] for kind in ("coco", "odgt")}
    assert boxes["coco"] == boxes["odgt"]


def test_losses_are_equal_to_the_last_bit(folder: Path) -> None:
    def losses(name: str) -> dict[str, torch.Tensor]:
        config = LazyConfig.load(str(TINY))
        torch.manual_seed(0)
        model = instantiate(config.model)
        mapper = DatasetMapper(is_train=True, augmentations=[], image_format="RGB")
        records = load_records(name, filter_empty=False)
        return model(next(iter(build_train_loader(dataset=records, mapper=mapper, total_batch_size=8))))

    first, *others = (losses(name) for kind, name in names(folder).items() if kind != "odgt")
    for other in others:
        assert first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "odgt"])
def test_every_form_is_an_option(folder: Path, kind: str) -> None:
    loader = {"dataset": {"names": "coco_2017"}, "mapper": {}}
    cfg = OmegaConf.create({"dataloader": {"train": loader, "test": loader}, "model": {"num_classes": 80}})
    option = names(folder)[kind].removesuffix(",split=train")
    use_own_dataset(cfg, option)
    check_data(cfg)
    assert cfg.model.num_classes == (1 if kind == "odgt" else 2)
    expected = {"yolo": ("train", "val")}.get(kind)
    if expected:
        for part, split in zip(("train", "test"), expected, strict=True):
            assert cfg.dataloader[part].dataset.names == f"{option},split={split}"
    evaluator = cfg.dataloader.evaluator._target_
    assert ("CrowdHuman" in str(evaluator)) == (kind == "odgt")
