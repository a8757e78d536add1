"""Checkpoints: safe to read, atomically written; initial weights from several sources."""

from la_det.checkpoint.checkpointer import Checkpointer

__all__ = ["Checkpointer"]
