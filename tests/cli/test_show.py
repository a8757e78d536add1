import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from la_det import cli

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "configs" / "tiny_poto.py"


def run_here(argv: list[str]) -> None:
    cli.run("show", argv, "show_assignments.py")


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    dataset = f"coco:{data}/images,{data}/train.json"
    return ["--config-file", str(CONFIG), "--dataset", dataset, "--output", str(output), *more]


def content(output: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', (output / "index.html").read_text(), re.DOTALL)[1])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints after the first and the last of 4 iterations."""
    folder = tmp_path_factory.mktemp("run")
    for iteration, name in enumerate(("model_0000000", "", "", "model_final")):
        if name:
            torch.manual_seed(iteration)
            model = instantiate(LazyConfig.load(str(CONFIG)).model)
            torch.save({"model": model.state_dict(), "trainer": {"iteration": iteration}}, folder / f"{name}.pth")
    return folder


def test_a_run_s_checkpoints_on_own_data(tiny_coco, run_folder, tmp_path):
    objects, no_object, crowd_only = "1", "4", "6"
    images = ("--images", objects, no_object, crowd_only)
    run_here(arguments(tiny_coco, tmp_path, "--weights", str(run_folder), *images))
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "1.png", "4.png", "6.png"}
    page = content(tmp_path)
    assert [picture["ignored"] for picture in page["pictures"]] == [[False] * 3, [], [True]]
    assert [panel["moment"] for (panel,) in page["rows"]] == [
        "model_0000000, progress 0.25",
        "model_final, progress 1.00",
    ]
    assert page["note"] == ""
    for (panel,) in page["rows"]:
        for picture, found in zip(page["pictures"], panel["found"], strict=True):
            objects = [i for i, ignored in enumerate(picture["ignored"]) if not ignored]
            assert sorted(found["gt"]) == objects
    first, last = (panel["found"] for (panel,) in page["rows"])
    assert first != last


def test_the_same_command_gives_the_same_page(tiny_coco, tmp_path):
    for name in ("a", "b"):
        run_here(arguments(tiny_coco, tmp_path / name, "--split", "train", "--num-images", "1"))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a")["note"].startswith("Random weights in tiny_poto")


def test_wrong_usage_is_one_line(tiny_coco, run_folder, tmp_path, capsys):
    def error(*more: str) -> str:
        with pytest.raises(SystemExit) as failure:
            run_here(arguments(tiny_coco, tmp_path, *more))
        assert failure.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    atss = "ATSS/atss_r18_fpn_shapes_tiny"
    weights = str(run_folder / "model_final.pth")
    assert "missing.py: no such config file" in error("--versus", "missing.py")
    assert "missing.pth: cannot get this checkpoint" in error("--weights", "missing.pth")
    assert "this checkpoint is of another model" in error("--versus", atss, "--versus-weights", weights)
    assert "--images 99: the data set has no such image_id" in error("--images", "99")
    assert "--weights has 2 values and another option 3" in error("--weights", str(run_folder), "--progress", *"000")
    (tmp_path / "file").write_text("")
    assert "file: File exists" in error("--output", str(tmp_path / "file"))
    faster_rcnn = "LLA/faster_rcnn_r50_fpn_30k_crowdhuman"
    assert "its model is a GeneralizedRCNN" in error("--config-file", faster_rcnn)


def test_config_by_place(tiny_coco, tmp_path):
    argv = arguments(tiny_coco, tmp_path / "flag", "--num-images", "1", "--versus", str(CONFIG))
    run_here(argv)
    by_place = [x.replace(str(tmp_path / "flag"), str(tmp_path / "place")) for x in argv[1:]]
    assert cli.run("show", by_place) == 0
    assert content(tmp_path / "place") == content(tmp_path / "flag")


@pytest.mark.slow
def test_in_its_own_process_on_shapes_tiny(tmp_path):
    config = "POTO/poto_r18_fpn_shapes_tiny"
    command = [sys.executable, "-m", "la_det", "show", config, "--num-images", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DETECTRON2_DATASETS": str(tmp_path / "datasets")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    written = {path.name for path in (tmp_path / "output/assignments").iterdir()}
    assert written == {"1.png", "300.png", "index.html"}


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["show", "--help"])
    text = capsys.readouterr().out
    assert "examples" in text and "--versus ATSS/atss_r18_fpn_shapes_tiny" in text
