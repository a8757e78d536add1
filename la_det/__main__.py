"""`python -m la_det` is `la-det`, where the latter is not on the path, and for torchrun."""

import sys

from la_det.cli import main

if __name__ == "__main__":
    sys.exit(main())
