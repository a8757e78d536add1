"""Imported first by every tool: says in one line how to start the tool if this Python lacks la_det's packages."""

import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def start(command):
    """Run a command of `la-det` with the flags of its tool, and exit."""
    if command in ("doctor", "install-detectron2"):  # they work where la_det is not installed
        sys.path.append(ROOT)
    from la_det.cli import run

    sys.exit(run(command, sys.argv[1:], tool=os.path.basename(sys.argv[0])))


def explain(kind, error, traceback):
    """Print the line if a package is missing because la_det's environment is not active; else the traceback."""
    missing = [name for name in ("la_det", "torch", "detectron2") if importlib.util.find_spec(name) is None]
    if issubclass(kind, ModuleNotFoundError) and missing:
        print("error: " + how_to_start("lacks the package " + missing[0]), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def how_to_start(problem):
    """What is wrong with this Python, and a command that works."""
    python = os.path.join(os.path.relpath(ROOT), ".venv", "bin", "python")
    note = "" if os.path.exists(python) else " (`make setup` makes .venv)"
    line = "this Python ({}) {}; activate the environment of la_det, or start: {} {}{}"
    return line.format(sys.executable, problem, os.path.normpath(python), os.path.relpath(sys.argv[0]), note)


if os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.abspath(__file__)):
    if sys.version_info < (3, 11):  # noqa: UP036 - who starts it may have an older one
        sys.exit("error: " + how_to_start("is older than 3.11"))
    sys.excepthook = explain
