#!/usr/bin/env python3
"""`la-det install-detectron2`, also where neither la_det nor torch is installed."""

from _start import start

if __name__ == "__main__":
    start("install-detectron2")
