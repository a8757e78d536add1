"""The exported module itself, and as TorchScript, which is quick to make. ONNX: test_same_detections.py."""

import json

import pytest
import torch
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.deploy.runtimes import METADATA_FILE
from la_det.errors import UserError
from la_det.export.formats import Options, write_torchscript
from la_det.export.graph import ExportGraph
from la_det.export.metadata import metadata_of
from tests.export.spread import spread_weights

SIZES = [(2, 192, 256), (1, 64, 64), (3, 96, 320), (1, 32, 32)]


def graph_of(name: str, folder, **options) -> ExportGraph:
    config = model_zoo.get_config(name)
    model = instantiate(config.model)
    model.load_state_dict(torch.load(spread_weights(config, folder / "weights.pth"))["model"])
    return ExportGraph(model, **options).eval()


def inputs(graph: ExportGraph, batch: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
    sizes = torch.tensor([[height - 3, width - 7]]).repeat(batch, 1)
    return (images, sizes)[: len(graph.input_names)]


@pytest.mark.parametrize(
    "name", ["POTO/poto_r18_fpn_shapes_tiny", "ATSS/atss_r18_fpn_shapes_tiny", "O2F/o2f_condinst_r18_fpn_shapes_tiny"]
)
def test_one_recording_serves_all_sizes(name, tmp_path):
    graph = graph_of(name, tmp_path)
    metadata = metadata_of(model_zoo.get_config(name), name, 32, "graph")
    write_torchscript(graph, metadata, tmp_path / "model.pt", Options())
    files = {METADATA_FILE: ""}
    loaded = torch.jit.load(tmp_path / "model.pt", _extra_files=files)
    assert json.loads(files[METADATA_FILE]).items() >= metadata.to_strings().items()
    for size in SIZES:
        with torch.no_grad():
            expected, found = graph(*inputs(graph, *size)), loaded(*inputs(graph, *size))
        assert len(graph.output_names) == len(expected) == len(found)
        for left, right in zip(expected, found, strict=True):
            torch.testing.assert_close(right, left)
        boxes, scores, _, _, counts, *masks = expected
        assert boxes.shape == (size[0], scores.shape[1], 4)
        assert (counts > 0).all()
        assert all(x.shape == (*scores.shape, size[1] // 4, size[2] // 4) for x in masks)


def test_a_failed_export_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    def fail(graph, file, _extra_files):
        file.write(b"half")
        raise RuntimeError("no space")

    name, path = "POTO/poto_r18_fpn_shapes_tiny", tmp_path / "model.pt"
    path.write_text("old")
    monkeypatch.setattr("torch.jit.save", fail)
    with pytest.raises(UserError, match=r"model.pt: cannot write \("):
        write_torchscript(
            graph_of(name, tmp_path), metadata_of(model_zoo.get_config(name), name, 32, "none"), path, Options()
        )
    assert path.read_text() == "old"


def test_image_sizes_are_an_input_only_where_boxes_are_clipped(tmp_path):
    assert graph_of("POTO/poto_r18_fpn_shapes_tiny", tmp_path).input_names == ["images"]
    assert graph_of("ATSS/atss_r18_fpn_shapes_tiny", tmp_path).input_names == ["images", "image_sizes"]


def test_training_branches_are_left_out(tmp_path):
    graph = graph_of("DATE/date_f_r18_fpn_shapes_tiny", tmp_path)
    assert list(graph.detector.head.predictors) == ["one_to_one"]
    assert not any(p.requires_grad for p in graph.parameters())


def test_scores_beyond_the_count_are_zero(tmp_path):
    graph = graph_of("POTO/poto_r18_fpn_shapes_tiny", tmp_path)
    graph.detector.inference.score_threshold = 0.98
    with torch.no_grad():
        _, scores, _, _, counts = graph(*inputs(graph, 2, 64, 96))
    beyond = torch.arange(scores.shape[1]) >= counts.unsqueeze(-1)
    assert beyond.any() and (~beyond).any()
    assert (scores[beyond] == 0).all() and (scores[~beyond] > 0.98).all()


def test_raw_candidates_are_all_that_nms_chooses_from(tmp_path):
    name = "FCOS/fcos_r18_fpn_shapes_tiny"
    graph, raw = graph_of(name, tmp_path), graph_of(name, tmp_path, raw=True)
    with torch.no_grad():
        boxes, scores, classes, priors, counts = raw(*inputs(raw, 2, 96, 128))
        _, _, kept_classes, kept_priors, kept_counts = graph(*inputs(graph, 2, 96, 128))
    assert (counts > kept_counts).all()
    assert boxes.shape[1] > 100 and (scores.diff(dim=1) <= 0).all()
    for i, count in enumerate(kept_counts.tolist()):
        all_pairs = set(zip(priors[i].tolist(), classes[i].tolist(), strict=True))
        assert all_pairs.issuperset(zip(kept_priors[i, :count].tolist(), kept_classes[i, :count].tolist(), strict=True))


def test_half_precision_keeps_single_precision_outside(tmp_path):
    name = "POTO/poto_r18_fpn_shapes_tiny"
    graph, half = graph_of(name, tmp_path), graph_of(name, tmp_path, half=True)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    with torch.no_grad():
        expected, found = graph(*inputs(graph, 1, 64, 64)), half(*inputs(half, 1, 64, 64))
    assert found[0].dtype == found[1].dtype == torch.float32
    assert (found[1] - expected[1]).abs().max() < 0.02
