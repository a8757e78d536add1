"""Detections in images, folders and videos: what goes into `tools/demo.py`, and what comes out."""
