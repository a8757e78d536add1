#!/usr/bin/env python3
"""`la-det train` and `la-det eval` with the flags of Detectron2's tools/lazyconfig_train_net.py."""

from _start import start

if __name__ == "__main__":
    start("train")
