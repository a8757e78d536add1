"""The schemes: what belongs to each one, and where it is.

A project's `schemes.yaml` has the `order` of the project in tables and one record per scheme. Benchmark, comparison and
golden checker take from the records what they need, and tools/zoo_table.py writes the READMEs' "Where it is" from them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import yaml

from la_det.model_zoo.configs import project_folders


@dataclass(frozen=True)
class Scheme:
    """One label-assignment scheme.

    Attributes:
        name: what its configs' names begin with.
        project: the folder in projects/.
        title: its name in tables.
        family: what an object gets: "one-to-many", "one-to-one", "one-to-few" or, of two branches, "dual".
        config: a config of the zoo, or a shared model config, that builds it at its recipe's size.
        matcher: dotted name of its matcher's class.
        losses: names of its loss terms in `la_det.modeling.criteria`.
        reference: dotted name of the readable dense form of the matcher's rule, see `la_det.references.image`.
        golden: folder of its golden files in tests/data.
        repository: where on GitHub its weights were published; None if nobody has.
        head: dotted name of a part of the head that the scheme alone has.
        crowd: it is made for one class in crowds, and is measured there.
        compared: it is part of the comparison of all schemes.
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
        ValueError: a `schemes.yaml` has a key that no record has, or lacks one; names project and scheme.
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
    """The object of a dotted name, "package.module.Class"."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def references() -> dict[type, Callable]:
    """Matcher class -> the dense form of its rule."""
    return {load(scheme.matcher): load(scheme.reference) for scheme in get_schemes().values()}
