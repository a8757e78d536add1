#!/usr/bin/env python3
"""`la-det doctor`, also where la_det is not installed."""

from _start import start

if __name__ == "__main__":
    start("doctor")
