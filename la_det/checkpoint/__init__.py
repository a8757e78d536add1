"""Checkpoints that are safe to read and atomically written, and initial weights from several sources."""

from la_det.checkpoint.checkpointer import Checkpointer

__all__ = ["Checkpointer"]
