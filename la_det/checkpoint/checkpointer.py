"""Detectron2's checkpointer, made safe: atomic writes, no pickled code, and an error if weights do not fit."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from la_det.checkpoint.initial_weights import initial_weights
from la_det.checkpoint.safe_pickle import (
    DAMAGES,
    check_tensors,
    load_pickled_arrays,
    load_safetensors,
    load_torch_file,
    outline,
    unpickling,
)
from la_det.errors import UserError

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Reads Detectron2's formats, `.safetensors`, `torchvision://resnet{18,34,50,101}` and `timm://<model name>`.

    A file is read and checked as a whole before the model gets any weights.

    Args:
        allow_pickle: read files that hold objects other than tensors, arrays and containers. Such files can run any
            code.
        strict: which parameters a checkpoint must have.
            True: exactly those of the model; in evaluation mode, the model's `training_only_keys()` may be missing.
            False: at least one of them, as initial weights of a backbone have.
        before_write: called before each file is written; it raises an error if the folder is no longer the run's.
        extras: what each file also holds, plain values by name.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        allow_pickle: bool = False,
        strict: bool = False,
        before_write: Callable[[], None] = lambda: None,
        extras: Mapping[str, Any] = MappingProxyType({}),
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.allow_pickle = allow_pickle
        self.strict = strict
        self.before_write = before_write
        self.extras = dict(extras)
        self._path = ""
        self._required: Set[str] = frozenset()

    def save(self, name: str, *, mark_last: bool = True, **kwargs: Any) -> None:
        """Write `name`.pth and mark it as the last checkpoint. A kill at any moment leaves a complete last checkpoint.

        Every process must call this method, because states are gathered. The main process writes.

        Args:
            mark_last: whether a resumed run starts from this file.
        """
        data = {key: obj.state_dict() for key, obj in {"model": self.model, **self.checkpointables}.items()}
        if not comm.is_main_process():
            return
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        self.before_write()
        with replacing(path) as file:
            torch.save(data | self.extras | kwargs, file)
        if mark_last:
            self.before_write()
            with replacing(path.with_name("last_checkpoint")) as file:
                file.write(path.name.encode())

    def resume(self, path: str) -> dict[str, Any]:
        """Load a checkpoint of this run. Everything must be there and fit.

        Only a moving average may be missing, and the names of classes, which older checkpoints do not have.
        """
        self.strict = True
        self._required = self.checkpointables.keys() - {"ema", "classes"}
        return self.load(path)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint.

        Raises:
            UserError: the checkpoint cannot be found or read, needs `allow_pickle`, or does not fit the model.
        """
        self._path = path
        weights = initial_weights(path)
        if weights is not None:
            self._log_incompatible_keys(self._load_model({"model": weights, "matching_heuristics": True}))
            return {}
        try:
            return super().load(path, checkpointables)
        except (OSError, AssertionError) as error:
            raise UserError(f"{path}: cannot get this checkpoint ({error}); check its path or address") from error
        except DAMAGES as error:
            raise UserError(
                f"{path}: what it holds beside the weights is not of this run ({str(error).splitlines()[0]}); take "
                "another checkpoint, or start a new run with train.init_checkpoint, which takes the weights alone"
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        suffix = Path(filename).suffix
        if suffix == ".pkl" and self.allow_pickle:
            with unpickling(filename):
                loaded = super()._load_file(filename)
        elif suffix == ".pkl":
            loaded = _detectron_format(load_pickled_arrays(filename))
        elif suffix == ".safetensors":
            loaded = {"model": load_safetensors(filename)}
        else:
            loaded = load_torch_file(filename, self.allow_pickle)
        if not (isinstance(loaded, dict) and "model" in loaded):
            loaded = {"model": loaded}
        missing = self._required - loaded.keys()
        if missing:
            raise UserError(
                f"{filename}: it has weights, but not a training's state ({', '.join(sorted(missing))}); start a new "
                "run with train.init_checkpoint, which takes the weights alone"
            )
        checked = {key: check_tensors(filename, loaded[key]) for key in ("model", "ema") if key in loaded}
        return loaded | checked

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._check_types(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        missing = incompatible.missing_keys
        if not self.model.training and hasattr(self.model, "training_only_keys"):
            unneeded = self.model.training_only_keys()
            missing = [key for key in missing if key not in unneeded]
        shapes = incompatible.incorrect_shapes
        misshaped = {key for key, _, _ in shapes}  # they count as missing, too
        wrong = {
            "missing": [key for key in missing if key not in misshaped],
            "unexpected": incompatible.unexpected_keys,
            "of another shape": [f"{key} {list(found)} instead of {list(wanted)}" for key, found, wanted in shapes],
        }
        none_loaded = {name for name, _ in self.model.named_parameters()} <= set(incompatible.missing_keys)
        if none_loaded or (self.strict and any(wrong.values())):
            detail = "; ".join(f"{len(keys)} {what} (first: {keys[0]})" for what, keys in wrong.items() if keys)
            raise UserError(
                f"{self._path}: this checkpoint is of another model: {detail}; "
                "use the config and the number of classes with which it was trained"
            )
        return incompatible

    def _check_types(self, weights: dict[str, torch.Tensor]) -> None:
        """Refuse integers for weights, and floating-point numbers for counters: torch would convert them."""
        model = self.model.state_dict()
        for key in model.keys() & weights.keys():
            found, wanted = weights[key].dtype, model[key].dtype
            if found.is_floating_point != wanted.is_floating_point:
                raise UserError(
                    f"{self._path}: {key} is of {found} instead of {wanted}; give a checkpoint of the model"
                )


def newest_intact(folder: str) -> str:
    """The folder's checkpoint marked as last or, if it is damaged, the newest intact one; "" if there is none.

    Raises:
        UserError: there are checkpoints, but all are damaged.
    """
    marked = _marked(folder)
    others = sorted(Path(folder).glob("model_[0-9]*.pth"), reverse=True)
    problem = ""
    for path in dict.fromkeys([*marked, *others]):
        try:
            outline(str(path), verify=True)
        except (UserError, OSError) as error:
            problem = problem or (str(error) if isinstance(error, UserError) else f"{path}: {error.strerror}")
        else:
            if problem:
                logger.warning("%s; going on from the newest intact checkpoint, %s", problem, path)
            elif not marked:
                logger.warning("%s: nothing says which checkpoint is the last; taking %s", folder, path)
            return str(path)
    if problem:
        raise UserError(f"{problem}; there is no intact checkpoint beside it; start the run again with --overwrite")
    return ""


def _marked(folder: str) -> list[Path]:
    """A list of the file marked as the last checkpoint; empty if none is marked."""
    try:
        name = Path(folder, "last_checkpoint").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return []
    return [Path(folder, name)] if name and Path(name).name == name else []


def _detectron_format(data: Any) -> Any:
    """A .pkl file's content in Detectron2's form: its own zoo's has an author, Caffe2's has weights in "blobs"."""
    if not isinstance(data, dict) or ("model" in data and "__author__" in data):
        return data
    blobs = data.get("blobs", data)
    weights = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write. It takes the place of `path` when it is complete, and is removed when writing fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk by a RuntimeError
        reason = error.strerror if isinstance(error, OSError) else "not all of it; is the disk full?"
        remedy = "free some space" if path.parent.is_dir() else f"{path.parent} is gone; make it again"
        raise UserError(f"{path}: cannot write ({reason}); {remedy}, and repeat or resume the run") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, and its folder if need be. A killed process leaves the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
