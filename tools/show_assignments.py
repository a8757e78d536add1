#!/usr/bin/env python3
"""`la-det show` with flags for configs and weights."""

from _start import start

if __name__ == "__main__":
    start("show")
