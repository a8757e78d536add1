"""Measurements of speed and memory, run by tools/benchmark.py."""
