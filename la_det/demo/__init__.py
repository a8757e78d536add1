"""Inputs and outputs of `tools/demo.py`, which detects objects in images, folders and videos."""
