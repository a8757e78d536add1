"""Label assignment for dense object detectors on Detectron2: matchers, criteria and the configs that combine them."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from la_det import model_zoo
    from la_det.api import evaluate, train
    from la_det.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "evaluate", "model_zoo", "train"]

# Imported at their first use: `la-det --help`, and the commands that repair an installation, need neither torch nor
# Detectron2.
_MODULES = {"Predictor": "la_det.predictor", "evaluate": "la_det.api", "train": "la_det.api"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "model_zoo":
        return import_module("la_det.model_zoo")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _MissingDetectron2:
    """The last finder of modules: if la_det imports Detectron2 and nobody finds it, the error says how to get it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "detectron2":
            frame = sys._getframe(1)
            while frame.f_back and frame.f_globals.get("__name__", "").startswith(("importlib.", "_frozen_importlib")):
                frame = frame.f_back
            if frame.f_globals.get("__name__", "").partition(".")[0] == __name__:
                raise ModuleNotFoundError("Detectron2 is missing; `la-det install-detectron2` installs it", name=name)


sys.meta_path.append(_MissingDetectron2)
