#!/usr/bin/env python3
"""`la-det check-data` with flags for data set and configs."""

from _start import start

if __name__ == "__main__":
    start("check-data")
