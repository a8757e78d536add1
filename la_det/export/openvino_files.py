"""From ONNX to OpenVINO's files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from la_det.checkpoint.checkpointer import replacing
from la_det.deploy.metadata import ExportMetadata
from la_det.deploy.runtimes import METADATA, needed


def import_openvino() -> None:
    """Raise `UserError` if OpenVINO is missing."""
    with needed("pip install 'la_det[openvino]'"):
        import openvino  # noqa: F401


def onnx_to_openvino(onnx_file: Path, metadata: ExportMetadata, path: Path) -> None:
    """Write an ONNX file of `la-det export` as an OpenVINO model: `path` (.xml), and its weights (.bin) beside it."""
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    core = openvino.Core()
    core.add_extension(ConversionExtension("DeformConv", _deform_conv))
    save_openvino(core.read_model(onnx_file), metadata, path)


def _deform_conv(node: Any) -> list:
    """ONNX's modulated DeformConv as OpenVINO's, which OpenVINO's reader of ONNX does not know."""
    from openvino import opset8

    x, weight, offset, bias, mask = (node.get_input(i) for i in range(5))
    pads = list(node.get_attribute("pads"))
    y = opset8.deformable_convolution(
        x,
        offset,
        weight,
        list(node.get_attribute("strides")),
        pads[:2],
        pads[2:],
        list(node.get_attribute("dilations")),
        mask,
        "EXPLICIT",
        node.get_attribute("group"),
        node.get_attribute("offset_group"),
        bilinear_interpolation_pad=True,  # zeros around the map, as in torchvision
    )
    return opset8.add(y, opset8.reshape(bias, opset8.constant([1, -1, 1, 1]), False)).outputs()


def save_openvino(model: Any, metadata: ExportMetadata, path: Path) -> None:
    """Write both files of an OpenVINO model, with its metadata."""
    import openvino

    for name, value in metadata.to_strings().items():
        model.set_rt_info(value, [METADATA, name])
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, path.name)
        openvino.save_model(model, written, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            with replacing(path.with_suffix(suffix)) as file:
                file.write(written.with_suffix(suffix).read_bytes())
