#!/usr/bin/env python3
"""`la-det export` with flags for config, weights and output."""

from _start import start

if __name__ == "__main__":
    start("export")
