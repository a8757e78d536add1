"""Checkpoints: safe to read, atomically written; initial weights from several sources."""

from la_det.checkpoint.checkpointer import Checkpointer, newest_intact

__all__ = ["Checkpointer", "newest_intact"]
