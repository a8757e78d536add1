"""Writers of a graph to a file, one for each format."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from la_det.checkpoint.checkpointer import replacing
from la_det.errors import UserError
from la_det.export.graph import ExportGraph
from la_det.export.metadata import ExportMetadata

logger = logging.getLogger(__name__)

OPSET = 20  # the first opset with GridSample in double precision, which box refinement uses
METADATA_FILE = "la_det.json"  # inside TorchScript and torch.export archives
# Batch and sides of the example for free sizes: all different, with more than one cell on every level.
EXAMPLE = (2, 192, 256)


def record(graph: ExportGraph, batch_size: int | None, image_size: tuple[int, int] | None) -> ExportedProgram:
    """The graph recorded by torch.export. None allows any batch size, or any multiple of the size divisibility."""
    batch, height, width = batch_size or EXAMPLE[0], *(image_size or EXAMPLE[1:])
    step = graph.detector.backbone.size_divisibility
    batch_dim = {} if batch_size else {0: Dim("batch", min=1)}
    size_dims = {} if image_size else {2: step * Dim("rows", min=1), 3: step * Dim("columns", min=1)}
    shapes = ({**batch_dim, **size_dims}, batch_dim)[: len(graph.input_names)]
    with torch.no_grad():
        return torch.export.export(graph, graph.example(batch, height, width), dynamic_shapes=(*shapes,))


def write_torch_export(
    graph: ExportGraph,
    metadata: ExportMetadata,
    path: Path,
    batch_size: int | None,
    image_size: tuple[int, int] | None,
) -> None:
    """Write a .pt2 archive for torch.export.load."""
    program = record(graph, batch_size, image_size)
    with replacing(path) as file:
        torch.export.save(program, file, extra_files={METADATA_FILE: metadata.to_json()})


def write_torchscript(
    graph: ExportGraph,
    metadata: ExportMetadata,
    path: Path,
    batch_size: int | None,
    image_size: tuple[int, int] | None,
) -> None:
    """Write an archive for torch.jit.load. Its sizes are always free: tracing does not fix them."""
    example = graph.example(batch_size or EXAMPLE[0], *(image_size or EXAMPLE[1:]))
    with torch.no_grad():
        traced = torch.jit.trace(graph, example, check_trace=False)
    with replacing(path) as file:
        torch.jit.save(traced, file, _extra_files={METADATA_FILE: metadata.to_json()})


def write_onnx(
    graph: ExportGraph,
    metadata: ExportMetadata,
    path: Path,
    batch_size: int | None,
    image_size: tuple[int, int] | None,
) -> None:
    """Write an ONNX file of opset `OPSET` that contains its weights.

    Raises:
        UserError: a package is missing.
        RuntimeError: the graph has an NMS node although the scheme has no NMS, or it has none although it should.
    """
    try:
        from la_det.export.onnx_operators import TRANSLATIONS
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing: pip install 'la_det[export]'") from error
    program = record(graph, batch_size, image_size)
    logger.info("translating to ONNX opset %d", OPSET)
    onnx_program = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
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


def check_nms(model, nms: str) -> None:
    """Raise `RuntimeError` unless the ONNX model has an NMS node exactly if it should: of detections or of queries."""
    nodes = [node for graph in (model.graph, *model.functions.values()) for node in graph.all_nodes()]
    found = any(node.op_type == "NonMaxSuppression" for node in nodes)
    if found != (nms in ("graph", "queries")):
        raise RuntimeError(f"the graph has {'an' if found else 'no'} NonMaxSuppression node, but its NMS is {nms!r}")


Writer = Callable[[ExportGraph, ExportMetadata, Path, "int | None", "tuple[int, int] | None"], None]
WRITERS: dict[str, Writer] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "torch-export": write_torch_export,
}
