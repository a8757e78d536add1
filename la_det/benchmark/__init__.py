"""Measurements of speed and memory, run by `la-det bench`."""
