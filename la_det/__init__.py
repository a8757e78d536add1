"""Label assignment for dense object detectors on Detectron2: matchers, criteria and the configs that combine them."""

__version__ = "0.1.0"


def __getattr__(name: str):
    # Imported when asked for: `la_det.errors` and the tools that repair an installation need neither torch nor
    # Detectron2.
    if name == "Predictor":
        from la_det.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
