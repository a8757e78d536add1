"""What the deployment benchmark says; not how fast anything is."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, Instances

from la_det.benchmark import deploy
from la_det.cli import bench, build_parser
from la_det.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = build_parser("bench").parse(["deploy"]).configs


def instances(scores: list[float], priors: list[int], shift: float = 0.0) -> Instances:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(len(scores), 1) + shift
    return Instances(
        (16, 16),
        pred_boxes=Boxes(boxes),
        scores=torch.tensor(scores),
        pred_classes=torch.zeros(len(scores), dtype=torch.int64),
        priors=torch.tensor(priors, dtype=torch.int64),
    )


def test_differences_are_those_of_the_same_pairs():
    expected = instances([0.9, 0.8, 0.5], [3, 1, 2])
    found = instances([0.8, 0.7, 0.5], [1, 3, 4], shift=0.25)
    far = deploy.difference(expected, found)
    assert (far.boxes, far.common, far.missing) == (0.25, 2, 0)  # 2 and 4 tie with the last
    assert far.scores == pytest.approx(0.2)
    far |= deploy.difference(expected, instances([0.9], [5]))
    assert (far.boxes, far.common, far.missing) == (0.25, 2, 0)
    assert deploy.difference(expected, instances([0.1], [5])).missing == 2
    assert deploy.difference(instances([], []), instances([], [])) == deploy.Difference()


def test_records_are_kept_until_the_weights_change(tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    model = deploy.Model(CONFIGS[0], weights, tmp_path, tmp_path)
    assert model.get("AP", "eager", lambda: 1.5) == 1.5
    again = deploy.Model(CONFIGS[0], weights, tmp_path, tmp_path)
    assert again.get("AP", "eager", lambda: pytest.fail("measured again")) == 1.5
    weights.write_bytes(b"two")
    assert deploy.Model(CONFIGS[0], weights, tmp_path, tmp_path).get("AP", "eager", lambda: 2.5) == 2.5


def test_weights_of_a_comparison_or_of_trainings(tmp_path):
    with pytest.raises(UserError, match="neither .*fcos_r18_fpn_shapes_tiny/model_final.pth nor .*_seed0/model_final"):
        deploy.find_weights(tmp_path, CONFIGS[0])
    file = tmp_path / "fcos_r18_fpn_shapes_tiny_seed0" / "model_final.pth"
    file.parent.mkdir()
    file.touch()
    assert deploy.find_weights(tmp_path, CONFIGS[0]) == file


def record(config: str, nms: float | None) -> dict:
    runtimes = ("eager", "compile", "onnx", "openvino", "int8")
    files = ("onnx", "openvino", "int8")
    columns = ("nms", "runtime", "batch", "preprocess", "network", "postprocess", "total")
    ms = {None: 0.5, 0.6: 1.5}
    rows = [
        dict(zip(columns, (value, x, b, 1.0, 2.0, ms[value], 3 + ms[value]), strict=True))
        for b in (1, 8)
        for x in runtimes
        for value, y in (
            (nms, 0.5 if nms is None else 1.5),
            (0.6 if nms is None else None, 1.5 if nms is None else 0.5),
        )
        if value == nms or x in ("eager", "onnx")
    ]
    return {
        "config": config,
        "weights": "",
        "AP": dict.fromkeys(runtimes, 40.0),
        "difference": dict.fromkeys(files, vars(deploy.Difference(1e-5, 1e-6, 0.0, 100, 0))),
        "bytes": dict.fromkeys(files, 14_000_000),
        "times": rows,
    }


def test_tables(tmp_path, capsys):
    for config, nms in ((CONFIGS[0], 0.6), (CONFIGS[1], None)):
        (tmp_path / f"{config.rpartition('/')[2]}.json").write_text(json.dumps(record(config, nms)))
    page = tmp_path / "page.md"
    page.write_text("A\n\n<!-- deploy: nms -->\nold\n<!-- end -->\n\nB\n")
    bench.run(build_parser("bench").parse(["deploy", "--results", str(tmp_path), "--page", str(page)]))
    assert "| poto" in capsys.readouterr().out
    header, _, fcos, poto = (line for line in page.read_text().splitlines() if line.startswith("|"))
    assert header.count("NMS ms") == 4
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in (fcos, poto)]
    assert cells[0] == ["fcos", "0.6", *["3.50", "4.50", "1.00"] * 4]
    assert cells[1] == ["poto", "none", *["3.50", "4.50", "1.00"] * 4]
    assert page.read_text().startswith("A\n") and page.read_text().endswith("<!-- end -->\n\nB\n")


def test_the_page_has_the_tables_of_its_records():
    page = ROOT / "docs/deploy.md"
    records = deploy.read_records(ROOT / "docs/deploy", CONFIGS)
    assert len(records) == len(CONFIGS)
    assert deploy.fill(page.read_text(), deploy.render(records)) == page.read_text()
