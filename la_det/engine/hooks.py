"""Hooks beyond Detectron2's."""

from __future__ import annotations

from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm

from la_det.checkpoint import Checkpointer


class CheckpointHook(HookBase):
    """Saves every `period` iterations and at the end, and keeps the newest `max_to_keep` periodic checkpoints.

    Unlike Detectron2's it runs in every process (each adds its random state) and finds what to delete on disk, so it
    goes on counting when a run is resumed.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, max_to_keep: int) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self.max_to_keep = max_to_keep

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self.checkpointer.save("model_final")
        elif done % self.period == 0:
            name = f"model_{self.trainer.iter:07d}"
            self.checkpointer.save(name)
            if comm.is_main_process():
                self._delete_before(name)

    def _delete_before(self, newest: str) -> None:
        saved = sorted(Path(self.checkpointer.save_dir).glob("model_[0-9]*.pth"))
        # Higher iterations are an earlier run's.
        for path in [path for path in saved if path.stem <= newest][: -self.max_to_keep]:
            path.unlink()
