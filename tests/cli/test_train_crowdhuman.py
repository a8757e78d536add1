"""Training on a crowd in the odgt form, ignore regions included, and its evaluation as CrowdHuman's."""

from dataclasses import replace
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from la_det import cli
from la_det.data.builtin import register_shapes
from la_det.data.shapes import SHAPES

CROWD = replace(SHAPES["shapes_crowd"], name="crowd_of_train_test", num_train=4, num_val=4)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A generated data set with ignored boxes; the beginning of its registered names."""
    register_shapes(CROWD, tmp_path_factory.mktemp("crowd"))
    name = f"{CROWD.name}_odgt"
    assert any(a["iscrowd"] for record in DatasetCatalog.get(f"{name}_train") for a in record["annotations"])
    return name


def run(config: str, crowd: str, output: Path, *more: str) -> None:
    options = [
        f"dataloader.train.dataset.names={crowd}_train",
        f"dataloader.test.dataset.names={crowd}_val",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "train.device=cpu",
        "train.max_iter=2",
        f"train.output_dir={output}",
    ]
    cli.run("train", ["--config-file", config, *options, *more], "train_net.py")


def last_results(text: str) -> dict[str, str]:
    """The last row of CrowdHuman metrics, with its header."""
    lines = text.splitlines()
    rows = [i for i, line in enumerate(lines) if line.startswith("| crowdhuman ")]
    header, row = ([cell.strip() for cell in lines[i].split("|")[1:-1]] for i in (rows[-1] - 2, rows[-1]))
    return dict(zip(header, row, strict=True))


def test_trains_evaluates_and_evaluates_again_with_the_same_result(crowd, tmp_path, capsys):
    config, detect_everything = "LLA/lla_r18_fpn_shapes_crowd", "+model.inference.score_threshold=0"
    run(config, crowd, tmp_path, detect_everything, "train.max_iter=15")
    trained = last_results(capsys.readouterr().out)
    assert list(trained) == ["task", "AP", "mMR", "JI", "Recall"]
    assert float(trained["Recall"]) > 0
    weights = f"train.init_checkpoint={tmp_path / 'model_final.pth'}"
    run(config, crowd, tmp_path / "again", detect_everything, "--eval-only", weights)
    assert last_results(capsys.readouterr().out) == trained


@pytest.mark.slow
def test_two_stage_reference_trains(crowd, tmp_path, capsys):
    as_they_are = ["dataloader.train.mapper.augmentations=[]", "dataloader.test.mapper.augmentations=[]"]
    config = "LLA/faster_rcnn_r50_fpn_30k_crowdhuman"
    run(config, crowd, tmp_path, *as_they_are, "train.init_checkpoint=", "train.max_iter=1")
    assert "Recall" in last_results(capsys.readouterr().out)
