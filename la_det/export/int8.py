"""Post-training quantisation: an OpenVINO file whose convolutions compute in int8."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from la_det.deploy import Detector
from la_det.deploy.runtimes import needed
from la_det.export.openvino_files import save_openvino


def import_nncf() -> None:
    """Raise `UserError` if OpenVINO's library for quantisation is missing."""
    os.environ.setdefault("NNCF_CI", "1")  # or it would report its use to its makers
    with needed("pip install 'la_det[openvino]'"):
        import nncf  # noqa: F401


def write_int8(float_file: Path, images: Sequence[np.ndarray], path: Path) -> None:
    """Write the int8 form of an OpenVINO file to `path` (.xml, and .bin beside it).

    Weights get a scale for each channel, and activations one scale each, from the values that the images cause. What
    follows the last convolutions stays float: 256 values are too few for coordinates.

    Args:
        images: calibration images [H, W, C] uint8, channels in the order of the network.
    """
    import nncf
    import openvino

    detector = Detector(float_file)
    inputs = [detector.prepare(image, detector.details.input_format) for image in images]
    feeds = [detector.feeds(detector.batch([x]), [x.shape[:2]]) for x in inputs]
    model = openvino.Core().read_model(float_file)
    ignored = nncf.IgnoredScope(names=after_convolutions(model))
    model = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds), ignored_scope=ignored)
    save_openvino(model, detector.details, path)


def after_convolutions(model: Any) -> list[str]:
    """Names of the operators of an OpenVINO model whose results no convolution gets."""
    operators = model.get_ordered_ops()
    before: set[str] = set()
    waiting = [x for x in operators if x.get_type_name() in ("Convolution", "DeformableConvolution")]
    while waiting:
        operator = waiting.pop()
        if operator.get_friendly_name() not in before:
            before.add(operator.get_friendly_name())
            waiting += [value.get_node() for value in operator.input_values()]
    names = (x.get_friendly_name() for x in operators if x.get_type_name() not in ("Constant", "Parameter", "Result"))
    return [name for name in names if name not in before]
