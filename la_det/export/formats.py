"""Writers of a graph to a file, one for each format."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from la_det.checkpoint.checkpointer import replacing
from la_det.deploy.metadata import ExportMetadata
from la_det.deploy.runtimes import METADATA_FILE, SHAPE, needed
from la_det.errors import UserError
from la_det.export.graph import ExportGraph
from la_det.export.openvino_files import onnx_to_openvino

logger = logging.getLogger(__name__)

# Batch and sides of the example for free sizes: all different, with more than one cell on every level.
EXAMPLE = (2, 192, 256)
OPSETS = range(18, 21)
# Operators that ONNX has since a later opset than the first of `OPSETS`.
SINCE = {
    "torchvision::deform_conv2d": 19,
    "aten::grid_sampler": 20,  # in double precision, which box refinement uses
}


@dataclass(frozen=True)
class Options:
    """How a graph is recorded and written.

    Attributes:
        format: a key of `WRITERS`.
        batch_size: fixed number of images; None: any number.
        image_size: fixed (height, width) of the input; None: any multiple of the size divisibility.
        half: whether weights and network have half precision.
        raw: whether the outputs of a one-to-many scheme are its candidates before NMS.
        opset: opset of ONNX, one of `OPSETS`.
        int8: whether the convolutions of an OpenVINO file compute in int8.
        calibration: name of the data set with the images that set the scales of int8; None: the config's training set.
        calibration_images: number of these images.
    """

    format: str = "onnx"
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    half: bool = False
    raw: bool = False
    opset: int = OPSETS[-1]
    int8: bool = False
    calibration: str | None = None
    calibration_images: int = 128


def record(graph: ExportGraph, options: Options) -> ExportedProgram:
    """The graph recorded by torch.export."""
    batch, height, width = options.batch_size or EXAMPLE[0], *(options.image_size or EXAMPLE[1:])
    step = graph.detector.backbone.size_divisibility
    batch_dim = {} if options.batch_size else {0: Dim("batch", min=1)}
    size_dims = {} if options.image_size else {2: step * Dim("rows", min=1), 3: step * Dim("columns", min=1)}
    shapes = ({**batch_dim, **size_dims}, batch_dim)[: len(graph.input_names)]
    with torch.no_grad():
        return torch.export.export(graph, graph.example(batch, height, width), dynamic_shapes=(*shapes,))


def write_torch_export(graph: ExportGraph, metadata: ExportMetadata, path: Path, options: Options) -> None:
    """Write a .pt2 archive for torch.export.load."""
    program = record(graph, options)
    with replacing(path) as file:
        torch.export.save(program, file, extra_files={METADATA_FILE: metadata.to_json()})


def write_torchscript(graph: ExportGraph, metadata: ExportMetadata, path: Path, options: Options) -> None:
    """Write an archive for torch.jit.load.

    Tracing fixes no size. So those that `options` fix are only noted, for the user of the file.
    """
    shape = json.dumps([options.batch_size, None, *(options.image_size or (None, None))])
    strings = json.dumps(metadata.to_strings() | {SHAPE: shape}, indent=1)
    example = graph.example(options.batch_size or EXAMPLE[0], *(options.image_size or EXAMPLE[1:]))
    with torch.no_grad():
        traced = torch.jit.trace(graph, example, check_trace=False)
    with replacing(path) as file:
        torch.jit.save(traced, file, _extra_files={METADATA_FILE: strings})


def write_onnx(graph: ExportGraph, metadata: ExportMetadata, path: Path, options: Options) -> None:
    """Write an ONNX file that contains its weights.

    Raises:
        UserError: a package is missing, or an operator of the graph needs a later opset.
        RuntimeError: the graph has an NMS node although the scheme has no NMS, or it has none although it should.
    """
    with needed("pip install 'la_det[export]'"):
        from la_det.export.onnx_operators import TRANSLATIONS
    program = record(graph, options)
    check_opset(program, options.opset)
    logger.info("translating to ONNX opset %d", options.opset)
    with warnings.catch_warnings():
        # torch.onnx copies tree specs in a way that torch itself deprecates.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        onnx_program = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            opset_version=options.opset,
            input_names=graph.input_names,
            output_names=graph.output_names,
            custom_translation_table=TRANSLATIONS,
        )
    model = onnx_program.model
    check_nms(model, metadata.nms)
    model.metadata_props.update(metadata.to_strings())
    content = onnx_program.model_proto.SerializeToString()
    with replacing(path) as file:
        file.write(content)


def check_opset(program: ExportedProgram, opset: int) -> None:
    """Raise `UserError` if an operator of the program needs a later opset."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        name = node.target.name().partition(".")[0] if isinstance(node.target, torch._ops.OpOverload) else ""
        if opset < SINCE.get(name, opset):
            raise UserError(f"--opset {opset}: this model's {name} needs --opset {SINCE[name]} or later")


def check_nms(model, nms: str) -> None:
    """Raise `RuntimeError` unless the ONNX model has an NMS node exactly if it should: of detections or of queries."""
    nodes = [node for graph in (model.graph, *model.functions.values()) for node in graph.all_nodes()]
    found = any(node.op_type == "NonMaxSuppression" for node in nodes)
    if found != (nms in ("graph", "queries")):
        raise RuntimeError(f"the graph has {'an' if found else 'no'} NonMaxSuppression node, but its NMS is {nms!r}")


def write_openvino(graph: ExportGraph, metadata: ExportMetadata, path: Path, options: Options) -> None:
    """Write an OpenVINO model: `path` (.xml), and beside it the file .bin with its weights."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, "model.onnx")
        write_onnx(graph, metadata, onnx_file, options)
        onnx_to_openvino(onnx_file, metadata, path)


Writer = Callable[[ExportGraph, ExportMetadata, Path, Options], None]
WRITERS: dict[str, Writer] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torchscript": write_torchscript,
    "torch-export": write_torch_export,
}
