import pytest
import torch

from analyze_model import build_parser, main
from la_det import model_zoo
from la_det.errors import UserError

NAME = "POTO/poto_r18_fpn_shapes_tiny"


def run(*arguments: str) -> None:
    main(build_parser().parse_args([*arguments, "--repeats", "1", "--opts", "train.device=cpu"]))


def test_table(capsys, tmp_path):
    model = model_zoo.get(NAME)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    run(NAME, "--weights", str(tmp_path / "weights.pth"), "--size", "64", "96")
    printed = capsys.readouterr()
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [c.strip() for c in line.split("|")[1:-1]] for line in printed.out.splitlines() if line.startswith("|")
        )
    }
    assert rows["part"] == ["parameters, M", "GFLOPs", "ms per image"]
    assert rows["all"][0] == f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}"
    times = [float(rows[part][2]) for part in ("preprocess", "backbone", "head", "postprocess")]
    assert float(rows["all"][2]) == pytest.approx(sum(times), abs=0.03)
    assert "network input 64 x 96" in printed.out and "device cpu" in printed.err


def test_model_of_detectron2_is_refused():
    with pytest.raises(UserError, match="faster_rcnn.*: its model is none of"):
        run("LLA/faster_rcnn_r50_fpn_30k_crowdhuman")


def test_unknown_config():
    with pytest.raises(UserError, match="POTO/nothing: no such config file"):
        run("POTO/nothing")
