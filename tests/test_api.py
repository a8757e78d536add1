"""Training and evaluation from Python."""

import copy
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import LazyCall, LazyConfig
from detectron2.engine import HookBase

import la_det
from la_det import api
from la_det.checkpoint import newest_intact
from la_det.errors import UserError
from tests.tiny_coco import write_tiny_coco

CONFIG = Path(__file__).parent / "cli" / "configs" / "tiny_poto.py"
ONE_ITERATION = ["train.max_iter=1", "model.inference.score_threshold=0"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = write_tiny_coco(tmp_path_factory.mktemp("data"))
    return f"coco:{data}/images,{data}/train.json,{data}/images,{data}/val.json"


def same(results: la_det.api.Results) -> dict:
    """Equal where NaN equals NaN."""
    return {task: pytest.approx(metrics, abs=0, rel=0, nan_ok=True) for task, metrics in results.items()}


def test_is_exported():
    assert (la_det.train, la_det.evaluate) == (api.train, api.evaluate)
    assert set(la_det.__all__) == {"Predictor", "evaluate", "model_zoo", "train"}


def test_the_zoo_needs_no_import_of_its_own():
    code = "import la_det; print(*la_det.model_zoo.list())"
    assert "POTO/poto_r50_fpn_3x_ms_coco" in subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_trains_and_evaluates(dataset, tmp_path):
    trained = la_det.train(CONFIG, overrides=ONE_ITERATION, dataset=dataset, output=tmp_path / "run")
    weights = tmp_path / "run" / "model_final.pth"
    assert {"bbox", "nms_gap"} <= trained.keys() and 0 <= trained["bbox"]["AP"] <= 100 and weights.is_file()
    again = la_det.evaluate(CONFIG, weights, dataset=dataset, overrides=ONE_ITERATION[1:], output=tmp_path / "again")
    assert again == same(trained)
    assert (tmp_path / "again" / "evaluation" / "model_final" / "results.json").is_file()
    assert la_det.evaluate(tmp_path / "run" / "config.yaml", resume=True) == same(trained)


def test_config_object_stays_as_it_is(dataset, tmp_path):
    config = LazyConfig.load(str(CONFIG))
    before = copy.deepcopy(config)
    la_det.train(config, overrides=ONE_ITERATION, dataset=dataset, output=tmp_path)
    assert config == before
    assert LazyConfig.load(str(tmp_path / "config.yaml")).train.max_iter == 1


def test_fits_the_recipe_to_the_data(dataset, tmp_path):
    """A fifth of an epoch of 10 images in batches of 2 is one iteration."""
    la_det.train(CONFIG, dataset=dataset, epochs=0.2, batch=2, image_size=32, output=tmp_path / "first")
    config = LazyConfig.load(str(tmp_path / "first" / "config.yaml"))
    assert (config.train.max_iter, config.dataloader.train.total_batch_size) == (1, 2)
    assert config.dataloader.test.mapper.augmentations[0].short_edge_length == 32
    weights = tmp_path / "first" / "model_final.pth"
    la_det.train(CONFIG, dataset=dataset, weights=weights, overrides=ONE_ITERATION, output=tmp_path / "second")
    assert LazyConfig.load(str(tmp_path / "second" / "config.yaml")).train.init_checkpoint == str(weights)


def losses(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [{k: v for k, v in line.items() if "loss" in k} for line in lines if "total_loss" in line]


def test_the_config_of_a_run_alone_repeats_it(dataset, tmp_path):
    overrides = ["train.max_iter=2", "model.criteria.0.matcher.alpha=0.5"]
    first = la_det.train(CONFIG, dataset=dataset, batch=2, overrides=overrides, output=tmp_path / "first")
    again = la_det.train(tmp_path / "first" / "config.yaml", output=tmp_path / "again")
    assert again == same(first)
    assert losses(tmp_path / "again") == losses(tmp_path / "first") and len(losses(tmp_path / "first")) == 2
    assert LazyConfig.load(str(tmp_path / "again" / "config.yaml")).model.criteria[0].matcher.alpha == 0.5


def test_errors_are_exceptions(dataset, tmp_path):
    with pytest.raises(UserError, match="POTO/nothing: no such config file"):
        la_det.train("POTO/nothing")
    with pytest.raises(UserError, match="did you mean train.max_iter"):
        la_det.train(LazyConfig.load(str(CONFIG)), overrides=["train.max_itr=1"])
    with pytest.raises(UserError, match="nowhere.pth: cannot get this checkpoint"):
        la_det.evaluate(CONFIG, "nowhere.pth", dataset=dataset, output=tmp_path)


class PressCtrlC(HookBase):
    """As a user would at iteration 1."""

    def after_step(self) -> None:
        if self.trainer.iter == 1:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_saves_a_checkpoint(dataset, tmp_path):
    config = LazyConfig.load(str(CONFIG))
    config.train.hooks = [LazyCall(PressCtrlC)()]
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT .*saved"):
        la_det.train(config, overrides=["train.max_iter=50"], dataset=dataset, output=tmp_path)
    assert newest_intact(str(tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
