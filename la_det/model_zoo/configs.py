"""The pieces of the configs as modules, for config files of one's own, in a checkout and in an installed wheel:

    from la_det.model_zoo.configs.common.models.poto import model

The files in configs/ change what they import from each other: poto.py turns FCOS's model into POTO's. So these modules
are no ordinary ones, which Python runs once. Each import of a name runs its file anew, as LazyConfig's relative imports
do, and gives an object that may be changed.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from detectron2.config import LazyConfig

from la_det.model_zoo.names import root

__path__ = [str(root() / "configs")]


class _Piece(ModuleType):
    """A config file as a module, whose names are read when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            try:
                return LazyConfig.load(str(self.__file__), name)
            except KeyError:
                pass
        raise AttributeError(f"{self.__name__} has no {name}")


class _Pieces:
    """Finder and loader of the modules."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        place = Path(__path__[0], *name.removeprefix(f"{__name__}.").split("."))
        if place.is_dir():
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        file = place.with_suffix(".py")
        return ModuleSpec(name, _Pieces, origin=str(file)) if file.is_file() else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return _Piece(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        module.__file__ = module.__spec__.origin if module.__spec__ else None


sys.meta_path.insert(0, _Pieces)
