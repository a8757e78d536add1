# make setup      install everything into .venv
# make demo       train POTO on generated images and evaluate it without NMS; results in output/demo
# make docs       the documentation as a site, from docs/: output/site/index.html
# make test       tests, code style and types
# make test-slow  the slow part of the tests: every config at full size, several processes, killed runs
# PYTHON=...      the interpreter that .venv is made from (default: the first found that is 3.11 or newer)

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$python && break; done)
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --constraint constraints.txt
READY := $(VENV)/.ready
# One thread per worker: the tests' tensors are small, and threads would only fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo docs test test-slow

setup: $(READY)

# Every step is a no-op where it was done before, so that an interrupted set-up is repaired by running it again.
$(READY): constraints.txt pyproject.toml setup.py la_det/cli/install_detectron2.py
	$(or $(PYTHON),$(error found no Python >= 3.11 with venv: install one, or name it with PYTHON=...)) -m venv $(VENV)
	$(PIP) torch torchvision
	$(VENV)/bin/python tools/install_detectron2.py
	$(PIP) --editable ".[dev]"
	touch $@

demo: setup
	$(VENV)/bin/python tools/train_net.py --config-file POTO/poto_r18_fpn_shapes_tiny \
		--overwrite train.output_dir=output/demo

# --strict: a broken link or reference, or a page that the navigation lacks, is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

test: setup
	$(PYTEST) -m "not slow"
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/python -m mypy

test-slow: setup
	$(PYTEST) -m slow
