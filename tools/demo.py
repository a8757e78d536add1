#!/usr/bin/env python3
"""`la-det detect` with flags for config and weights."""

from _start import start

if __name__ == "__main__":
    start("detect")
