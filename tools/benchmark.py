#!/usr/bin/env python3
"""`la-det bench`."""

from _start import start

if __name__ == "__main__":
    start("bench")
