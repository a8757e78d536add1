"""Records of all schemes: the parts of each scheme, and their places.

A project's `schemes.yaml` has the project's `order` in tables, and one record per scheme. Benchmark, comparison and
golden checker read the records. tools/zoo_table.py writes the section "Where it is" of the READMEs from them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import yaml

from la_det.model_zoo.names import project_folders


@dataclass(frozen=True)
class Scheme:
    """One label-assignment scheme.

    Attributes:
        name: beginning of the names of its configs.
        project: folder in projects/.
        title: name in tables.
        family: how many positives an object gets: "one-to-many", "one-to-one", "one-to-few", or "dual" (two branches).
        config: a config of the zoo, or a shared model config, that builds the scheme at its recipe's size.
        matcher: dotted name of the matcher's class.
        losses: names of the loss terms in `la_det.modeling.criteria`.
        reference: dotted name of the readable dense form of the matcher's rule, see `la_det.references.image`.
        golden: folder of the golden files in tests/data.
        repository: repository on GitHub that published the weights; None if nobody published any.
        head: dotted name of a part of the head that only this scheme has.
        crowd: whether the scheme is made for one class in crowds, and is measured on crowds.
        compared: whether the scheme is part of the comparison of all schemes.
    """

    name: str
    project: str
    title: str
    family: Literal["one-to-many", "one-to-one", "one-to-few", "dual"]
    config: str
    matcher: str
    losses: tuple[str, ...]
    reference: str
    golden: str
    repository: str | None = None
    head: str | None = None
    crowd: bool = False
    compared: bool = True


@cache
def get_schemes() -> dict[str, Scheme]:
    """All schemes by name, in the order of the projects and of their records.

    Raises:
        ValueError: a record has an unknown key or lacks a key; the message names project and scheme.
    """
    files = [(folder.name, yaml.safe_load((folder / "schemes.yaml").read_text())) for folder in project_folders()]
    schemes = {}
    for project, content in sorted(files, key=lambda file: file[1]["order"]):
        for name, record in content["schemes"].items():
            try:
                schemes[name] = Scheme(name, project, **record | {"losses": tuple(record["losses"])})
            except (KeyError, TypeError) as error:
                raise ValueError(f"{project}/schemes.yaml: {name}: {error}") from error
    return schemes


def load(name: str) -> Any:
    """The object with a dotted name, "package.module.Class"."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def references() -> dict[type, Callable]:
    """Matcher class -> the dense form of its rule."""
    return {load(scheme.matcher): load(scheme.reference) for scheme in get_schemes().values()}
