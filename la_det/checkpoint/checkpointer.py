"""Detectron2's checkpointer, made safe: atomic writes, no pickled code, no weights that silently do not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from la_det.checkpoint.initial_weights import initial_weights
from la_det.checkpoint.safe_pickle import check_pickle, load_safetensors, load_torch_file, unpickling
from la_det.errors import UserError


class Checkpointer(DetectionCheckpointer):
    """Reads Detectron2's formats, `.safetensors`, `torchvision://resnet{18,34,50,101}` and `timm://<model name>`.

    Args:
        allow_pickle: read files that hold objects other than tensors, arrays and containers. They can run any code.
        strict: refuse a checkpoint that does not have exactly the model's parameters; a model in evaluation mode can do
            without its `training_only_keys()`. Otherwise the checkpoint needs to have some of them, as initial weights
            of a backbone do.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        allow_pickle: bool = False,
        strict: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.allow_pickle = allow_pickle
        self.strict = strict
        self._path = ""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `name`.pth and mark it as the last one; a kill at any moment leaves a complete last checkpoint.

        Every process must call it, because states are gathered; the main one writes.
        """
        data = {key: obj.state_dict() for key, obj in {"model": self.model, **self.checkpointables}.items()}
        if not comm.is_main_process():
            return
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with replacing(path) as file:
            torch.save(data | kwargs, file)
        with replacing(path.with_name("last_checkpoint")) as file:
            file.write(path.name.encode())

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the last checkpoint if `resume` and there is one, demanding that it fits; else the weights at `path`."""
        self.strict = self.strict or (resume and self.has_checkpoint())
        return super().resume_or_load(path, resume=resume)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint.

        Raises:
            UserError: if it cannot be had or read, needs `allow_pickle`, or does not fit the model.
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

    def _load_file(self, filename: str) -> dict[str, Any]:
        suffix = Path(filename).suffix
        if suffix == ".pkl":
            if not self.allow_pickle:
                check_pickle(filename)
            with unpickling(filename):
                return super()._load_file(filename)
        if suffix == ".safetensors":
            return {"model": load_safetensors(filename)}
        loaded = load_torch_file(filename, self.allow_pickle)
        return loaded if "model" in loaded else {"model": loaded}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        missing = incompatible.missing_keys
        if not self.model.training and hasattr(self.model, "training_only_keys"):
            unneeded = self.model.training_only_keys()
            missing = [key for key in missing if key not in unneeded]
        wrong = {
            "missing": missing,
            "unexpected": incompatible.unexpected_keys,
            "of another shape": [
                f"{key} {list(found)} instead of {list(wanted)}" for key, found, wanted in incompatible.incorrect_shapes
            ],
        }
        # A parameter of another shape counts as missing, too.
        none_loaded = {name for name, _ in self.model.named_parameters()} <= set(incompatible.missing_keys)
        if none_loaded or (self.strict and any(wrong.values())):
            detail = "; ".join(f"{len(keys)} {what} (first: {keys[0]})" for what, keys in wrong.items() if keys)
            raise UserError(
                f"{self._path}: this checkpoint is of another model: {detail}; "
                "use the config and the number of classes with which it was trained"
            )
        return incompatible


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when it is complete, and leaves no trace when writing fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except RuntimeError as error:  # how torch reports a full disk
        raise UserError(f"{path}: cannot write ({error}); free some space and repeat or resume the run") from error
    finally:
        temporary.unlink(missing_ok=True)
