"""Training on one's own COCO-format data by one command-line option."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass

from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
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


def _read(image_root: str, json_file: str) -> CocoFiles:
    if not os.path.isdir(image_root):
        raise UserError(f"{image_root}: no such folder of images")
    if not os.path.isfile(json_file):
        raise UserError(f"{json_file}: no such annotation file")
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        names = tuple(category["name"] for category in categories)
        return CocoFiles(image_root, json_file, len(content["images"]), len(content["annotations"]), names)
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
