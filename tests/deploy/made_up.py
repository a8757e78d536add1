"""Hand-made ONNX files that always find the same."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from la_det.deploy.metadata import ExportMetadata

METADATA = ExportMetadata(
    la_det="0",
    config="made/up",
    classes=("left", "right"),
    category_ids=(3, 7),
    pixel_mean=(10.0, 20.0, 30.0),
    pixel_std=(1.0, 2.0, 4.0),
    input_format="RGB",
    size_divisibility=32,
    short_edge=None,
    max_size=None,
    score_threshold=0.05,
    nms="none",
    nms_threshold=None,
    max_detections=100,
)
# Two of three detections exist.
FOUND = {
    "boxes": np.array([[[4, 8, 20, 24], [0, 0, 64, 32], [9, 9, 9, 9]]], np.float32),
    "scores": np.array([[0.9, 0.4, 0.0]], np.float32),
    "classes": np.array([[1, 0, 0]]),
    "priors": np.array([[7, 5, 3]]),
    "counts": np.array([2]),
}


def write(path: Path, metadata: ExportMetadata | None, batch="batch", height="height", width="width", **more) -> Path:
    """A graph that finds FOUND and `more` in every image."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, height, width])
    nodes = [helper.make_node("Shape", ["images"], ["n"], start=0, end=1)]
    outputs, constants = [], []
    for name, value in {**FOUND, **more}.items():
        constants.append(numpy_helper.from_array(value, f"{name}_1"))
        ones = numpy_helper.from_array(np.ones(value.ndim - 1, np.int64), f"{name}_ones")
        constants.append(ones)
        nodes.append(helper.make_node("Concat", ["n", f"{name}_ones"], [f"{name}_repeats"], axis=0))
        nodes.append(helper.make_node("Tile", [f"{name}_1", f"{name}_repeats"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, [None] * value.ndim))
    graph = helper.make_graph(nodes, "made_up", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata is not None:
        helper.set_model_props(model, metadata.to_strings())
    onnx.save(model, path)
    return path
