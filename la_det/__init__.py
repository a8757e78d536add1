"""Label assignment for dense object detectors on Detectron2: matchers, criteria and the configs that combine them."""

__version__ = "0.1.0"
