"""docs/extend.md: own parts in one file, and pieces of the recipes in a config of one's own."""

import json
import re
import shutil
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

from la_det import cli, model_zoo
from tests.tiny_coco import write_tiny_coco

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text()
EXAMPLE = ROOT / "docs" / "examples" / "my_detector.py"
SMALL = ["train.device=cpu", "dataloader.train.total_batch_size=2"]
SMALL += ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]


def test_the_page_shows_the_file():
    assert f"```python\n{EXAMPLE.read_text()}```" in PAGE
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_own_parts_take_part(tmp_path, monkeypatch):
    """All commands of the page, on a copy of the file elsewhere."""
    monkeypatch.chdir(tmp_path)
    write_tiny_coco(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    commands = re.search(r"```bash\nDATA=.*?\n(la-det train .*?)```", PAGE, re.DOTALL)[1]
    commands = commands.replace("$DATA", "coco:images,train.json,images,val.json").replace("pictures/", "images")
    train, evaluate, show, detect = (line.split()[1:] for line in commands.splitlines())
    assert cli.main([*train, "train.max_iter=3", "train.log_period=1", "train.diagnostics_period=1", *SMALL]) == 0
    lines = [json.loads(line) for line in Path("output/mine/metrics.json").read_text().splitlines()]
    assert [line["iterations_left"] for line in lines if "iterations_left" in line] == [2, 1, 0]
    assert any("assignment/main/BestNearest/positives" in line for line in lines)
    assert lines[-1]["bbox/loose"] == lines[-1]["bbox/AP50"] - lines[-1]["bbox/AP75"]
    assert cli.main([*evaluate, *SMALL]) == 0
    assert "loose" in json.loads(Path("output/mine/evaluation/model_final/results.json").read_text())["bbox"]
    assert cli.main([*show, "--num-images", "1", "--opts", *SMALL[:1]]) == 0
    assert cli.main([*detect, *SMALL[:1]]) == 0
    assert Path("output/assignments/index.html").is_file()


def test_in_python(tmp_path, monkeypatch):
    """The page's last block, with fewer iterations."""
    monkeypatch.chdir(tmp_path)
    write_tiny_coco(tmp_path)
    text = EXAMPLE.read_text() + "train.max_iter = 2\ntrain.device = 'cpu'\ndataloader.train.total_batch_size = 2\n"
    text += "dataloader.train.num_workers = dataloader.test.num_workers = 0\n"
    (tmp_path / "my_detector.py").write_text(text)
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "la_det.train(" in block]
    block = block.replace("IMAGES,TRAIN.json,VAL_IMAGES,VAL.json", "images,train.json,images,val.json")
    namespace: dict = {}
    exec(block.replace("a.jpg", "images/0.jpg"), namespace)
    assert namespace["results"]["bbox"].keys() >= {"AP", "loose"}
    assert namespace["instances"].image_size == (64, 48)


def test_every_import_of_a_piece_is_fresh():
    namespace: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (imports,) = [block for block in blocks if "model_zoo.configs" in block]
    exec(imports, namespace)
    piece = model_zoo.get_config("common/models/poto")
    assert namespace["model"] == piece.model
    namespace["model"].num_classes = 3
    exec(imports, namespace)
    assert namespace["model"].num_classes == piece.model.num_classes == 80
    # POTO's file changes what it imports from this one.
    from la_det.model_zoo.configs.common.models.fcos_wo_ctrness import model

    assert model == model_zoo.get_config("common/models/fcos_wo_ctrness").model


def test_a_config_file_of_imported_pieces(tmp_path):
    text = "from la_det.model_zoo.configs.common.models.poto import model\n"
    text += "from la_det.model_zoo.configs.common.train import train\nmodel.num_classes = 7\n"
    (tmp_path / "mine.py").write_text(text)
    config = LazyConfig.load(str(tmp_path / "mine.py"))
    assert config.model.num_classes == 7 and config.train == model_zoo.get_config("common/train").train


def test_pieces_that_are_not_there():
    with pytest.raises(ModuleNotFoundError, match="la_det.model_zoo.configs.common.nothing"):
        import la_det.model_zoo.configs.common.nothing  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from la_det.model_zoo.configs.common.train import nothing  # noqa: F401
