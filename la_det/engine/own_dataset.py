"""Training on one's own data by one command-line option, and the names of classes, which travel with the weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from tabulate import tabulate

from la_det.checkpoint.recipe import read_classes
from la_det.config import class_node
from la_det.data.classes import Classes, classes_of_data, classes_of_model
from la_det.data.records import check_records
from la_det.data.sources import FORMAT as FORMAT
from la_det.data.sources import DataSource, read_source, train_and_test
from la_det.data.table import Records
from la_det.errors import UserError
from la_det.evaluation import COCOEvaluator, CrowdHumanEvaluator

logger = logging.getLogger(__name__)


def use_own_dataset(cfg: DictConfig, option: str) -> None:
    """Point the config's loaders, evaluator and class count to the data in `option` (see `FORMAT`).

    The first data set is for training, all further ones are for evaluation.

    Raises:
        UserError: `option` is malformed, something in the data is surely wrong, or the data sets' classes differ.
    """
    train, tests = train_and_test(option)
    if train.kind == "voc":
        train, *tests = _with_all_classes([train, *tests])
    records = {str(source): read_source(str(source)) for source in (train, *tests)}
    first = records[str(train)]
    for source in tests:
        other = records[str(source)]
        if other.classes != first.classes:
            raise UserError(
                f"{other.source}: its classes are {list(other.classes)}, those of {first.source} "
                f"{list(first.classes)}; both need the same categories"
            )
    names = [str(source) for source in tests]
    cfg.dataloader.train.dataset.names = str(train)
    cfg.dataloader.test.dataset.names = names[0] if len(names) == 1 else names
    # Not the evaluator of the recipe's data, since CrowdHuman's reads odgt files; but one of the user's own stays.
    if _is_of_libraries(cfg.dataloader.get("evaluator")):
        evaluator = CrowdHumanEvaluator if train.kind == "odgt" else COCOEvaluator
        cfg.dataloader.evaluator = L(evaluator)(dataset_name="${..test.dataset.names}")
    class_node(cfg.model).num_classes = len(first.classes)
    cfg.dataloader.classes = Classes(first.classes, first.class_ids).state_dict()
    _log_table({"training": first} | {f"evaluation {i}": records[name] for i, name in enumerate(names, start=1)})


def _is_of_libraries(node: DictConfig | None) -> bool:
    """Whether a node builds something of la_det or Detectron2, or nothing."""
    if node is None:
        return True
    name = node["_target_"] if isinstance(node["_target_"], str) else node["_target_"].__module__
    return name.partition(".")[0] in ("la_det", "detectron2")


def _with_all_classes(sources: Sequence[DataSource]) -> list[DataSource]:
    """The sources, each with the classes found in all of them: a VOC folder need not have objects of every class."""
    if len(set(source.paths for source in sources)) == 1 or sources[0].options.classes:
        return list(sources)
    classes = tuple(sorted({name for source in sources for name in read_source(str(source)).classes}))
    return [replace(source, options=replace(source.options, classes=classes)) for source in sources]


def names_of_test_sets(cfg: DictConfig) -> list[str]:
    """Names of a config's test sets."""
    names = cfg.dataloader.test.dataset.names
    return [names] if isinstance(names, str) else list(names)


def check_data(cfg: DictConfig) -> None:
    """Read the training and test sets of a training, and check all that can be checked before the training begins.

    Raises:
        UserError: something is surely wrong, or the model has another number of classes.
    """
    masks = cfg.dataloader.train.mapper.get("use_instance_mask", False)
    train = cfg.dataloader.train.dataset.names
    names = dict.fromkeys([*([train] if isinstance(train, str) else train), *names_of_test_sets(cfg)])
    check_records(list(names), class_node(cfg.model).num_classes, masks)


def data_classes(cfg: DictConfig) -> Classes | None:
    """The classes of the data that a config trains on, for its checkpoints."""
    return classes_of_data(cfg.dataloader.train.dataset.names)


def model_classes(cfg: DictConfig, weights: str | Path | None) -> Classes:
    """Names of a trained model's classes: see `classes_of_model`."""
    stored: Mapping | None = read_classes(str(weights)) if weights else None
    return classes_of_model(
        stored, cfg.dataloader.get("classes"), cfg.dataloader.test.dataset.names, class_node(cfg.model).num_classes
    )


def check_classes(cfg: DictConfig, weights: str) -> None:
    """Refuse to evaluate weights on a data set with the same classes in another order; warn if the names differ.

    Raises:
        UserError: the order of the classes differs.
    """
    stored = read_classes(str(weights))
    found = stored and classes_of_data(cfg.dataloader.test.dataset.names)
    if not found or list(stored["names"]) == list(found.names):
        return
    if sorted(stored["names"]) == sorted(found.names):
        raise UserError(
            f"{weights}: its classes are, in this order, {stored['names']}, those of the data set {list(found.names)}; "
            "give the categories ids in the order of the weights"
        )
    logger.warning("%s was trained for the classes %s; the data set has %s", weights, stored["names"], found.names)


def _log_table(splits: dict[str, Records]) -> None:
    rows = [
        (use, r.image_root, r.source, len(r), len(r.labels) if r.annotated else "none") for use, r in splits.items()
    ]
    table = tabulate(rows, ["for", "images in", "annotations in", "images", "annotations"], tablefmt="pipe")
    classes = next(iter(splits.values())).classes
    logger.info("Data set with %d classes (%s):\n%s", len(classes), ", ".join(classes), table)
