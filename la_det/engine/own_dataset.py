"""Training on one's own COCO-format data by one command-line option."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass

from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from omegaconf import DictConfig
from tabulate import tabulate

from la_det.config import class_node
from la_det.errors import UserError
from la_det.evaluation import COCOEvaluator

logger = logging.getLogger(__name__)

FORMAT = "coco:IMAGES_DIR,JSON[,IMAGES_DIR,JSON]"


@dataclass(frozen=True)
class CocoFiles:
    """A folder of images and the COCO-format JSON file that annotates them."""

    image_root: str
    json_file: str
    num_images: int
    num_annotations: int
    class_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The data set's name in Detectron2's catalogs."""
        return self.json_file


def use_own_dataset(cfg: DictConfig, option: str) -> None:
    """Point the config's loaders, evaluator and class count to the data in `option` (see `FORMAT`).

    The first pair is for training, the second, if there is one, for evaluation.

    Raises:
        UserError: if `option` is malformed, a file is missing or malformed, or the two files' classes differ.
    """
    kind, _, paths = option.partition(":")
    parts = paths.split(",")
    if kind != "coco" or len(parts) not in (2, 4) or not all(parts):
        raise UserError(f"--dataset {option}: it has the form {FORMAT}")
    train, test = _read(parts[0], parts[1]), _read(parts[-2], parts[-1])
    if train.class_names != test.class_names:
        raise UserError(
            f"{test.json_file}: its classes are {test.class_names}, those of {train.json_file} {train.class_names}; "
            "both files need the same categories"
        )
    for files in (train, test):
        if files.name not in DatasetCatalog:
            register_coco_instances(files.name, {}, files.json_file, files.image_root)
    cfg.dataloader.train.dataset.names = train.name
    cfg.dataloader.test.dataset.names = test.name
    # Not the config's own: that of a CrowdHuman config reads odgt files.
    cfg.dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    class_node(cfg.model).num_classes = len(train.class_names)
    _log_table({"training": train, "evaluation": test})


def class_metadata(name: str) -> Metadata:
    """Metadata of a data set, with the names of its classes where they are to be had.

    One's own data is named by its annotation file, in the configs of runs, too; that is read if it is still there.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None and os.path.isfile(name):
        _, _, categories = _read_annotations(name)
        metadata.thing_classes = list(categories.values())
        metadata.thing_dataset_id_to_contiguous_id = {number: i for i, number in enumerate(categories)}
    return metadata


def _read(image_root: str, json_file: str) -> CocoFiles:
    if not os.path.isdir(image_root):
        raise UserError(f"{image_root}: no such folder of images")
    if not os.path.isfile(json_file):
        raise UserError(f"{json_file}: no such annotation file")
    num_images, num_annotations, categories = _read_annotations(json_file)
    return CocoFiles(image_root, json_file, num_images, num_annotations, tuple(categories.values()))


def _read_annotations(json_file: str) -> tuple[int, int, dict[int, str]]:
    """Numbers of images and annotations of a COCO-format file, and its categories by id, in the order of the ids."""
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        names = {category["id"]: category["name"] for category in categories}
        return len(content["images"]), len(content["annotations"]), names
    except ValueError as error:
        raise UserError(f"{json_file}: malformed JSON ({error}); write the file again") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{json_file}: not COCO-format annotations ({error}); it needs images, annotations and categories"
        ) from error


def _log_table(splits: dict[str, CocoFiles]) -> None:
    rows = [(use, f.image_root, f.json_file, f.num_images, f.num_annotations) for use, f in splits.items()]
    table = tabulate(rows, ["for", "images in", "annotations in", "images", "annotations"], tablefmt="pipe")
    classes = next(iter(splits.values())).class_names
    logger.info("Data set with %d classes (%s):\n%s", len(classes), ", ".join(classes), table)
