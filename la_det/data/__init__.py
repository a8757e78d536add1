"""Data sets. Importing this package registers them in Detectron2's catalogs."""

from . import builtin as builtin
