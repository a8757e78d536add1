"""Names and ids of a model's classes, which travel with its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.data import Metadata, MetadataCatalog

from la_det.data.coco import read_categories
from la_det.data.sources import is_source, read_source
from la_det.errors import UserError


@dataclass
class Classes:
    """Names of the K classes, and their ids in the data set, for results in COCO's form.

    A checkpoint has them beside the weights, by `state_dict` and `load_state_dict`.
    """

    names: Sequence[str]
    ids: Sequence[int | float | str]

    def state_dict(self) -> dict[str, list]:
        """Names and ids as plain lists."""
        return {"names": list(self.names), "ids": list(self.ids)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise `UserError` if the resumed run had other classes."""
        if list(state["names"]) != list(self.names):
            raise UserError(
                f"the checkpoint was trained for the classes {list(state['names'])}, the data set has "
                f"{list(self.names)}; go on with the same data, or start a new run"
            )

    def metadata(self, name: str) -> Metadata:
        """The classes in Detectron2's form, without an entry in its catalog."""
        return Metadata(
            name=name,
            thing_classes=list(self.names),
            thing_dataset_id_to_contiguous_id={number: i for i, number in enumerate(self.ids)},
        )


def classes_of_data(names: str | Sequence[str]) -> Classes | None:
    """Classes of a data set, or of the first of several; None if it names none and its files are missing."""
    name = names if isinstance(names, str) else names[0]
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None:
        try:
            if is_source(name):
                read_source(name)
            elif name.endswith(".json") and os.path.isfile(name):  # earlier versions named one's own data so
                return Classes(*read_categories(name))
        except UserError:
            return None  # the reader of the data will report it
    found = metadata.get("thing_classes")
    if found is None:
        return None
    ids = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(found))}
    return Classes(list(found), sorted(ids, key=ids.get))


def classes_of_model(
    stored: Mapping[str, Any] | None, config: Mapping[str, Any] | None, names: str | Sequence[str], num_classes: int
) -> Classes:
    """The classes of a model, from its weights, else its config, else its data set, else as numbers.

    Args:
        stored: classes stored with the weights, from `Classes.state_dict`.
        config: classes of the config in the same form, `dataloader.classes`.
        names: names of the data sets.
        num_classes: number of classes of the model.

    Raises:
        UserError: the number of names is not `num_classes`.
    """
    for of, state in (("weights", stored), ("config", config)):
        if state:
            classes = Classes(list(state["names"]), list(state["ids"]))
            if len(classes.names) != num_classes:
                raise UserError(
                    f"the {of} are of {len(classes.names)} classes, the config has {num_classes}; "
                    f"set model.num_classes={len(classes.names)}"
                )
            return classes
    classes = classes_of_data(names)
    if classes is None:
        return Classes(list(map(str, range(num_classes))), list(range(num_classes)))
    if len(classes.names) != num_classes:
        name = names if isinstance(names, str) else names[0]
        raise UserError(
            f"{name}: the data set has {len(classes.names)} classes, the config {num_classes}; "
            f"set model.num_classes={len(classes.names)}"
        )
    return classes
