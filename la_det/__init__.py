"""Label assignment for dense object detectors on Detectron2: matchers, criteria and the configs that combine them."""

__version__ = "0.1.0"


def __getattr__(name: str):
    # Imported at its first use: `la_det.errors`, and the tools that repair an installation, must not need torch or
    # Detectron2.
    if name == "Predictor":
        from la_det.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
