"""Checkpoints that are safe to read and atomically written, and initial weights from several sources."""

from la_det.checkpoint.checkpointer import Checkpointer, newest_intact

__all__ = ["Checkpointer", "newest_intact"]
