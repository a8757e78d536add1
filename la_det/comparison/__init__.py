"""Trainings, measurements and reports of `la-det compare`: all schemes under one budget."""

from pathlib import Path

RESULTS = Path("docs/comparison")  # where records are by default
