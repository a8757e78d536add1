"""Trainings as a whole: whose run is in the output folder, and what a resumed run begins with."""

import json
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig
from detectron2.engine import HookBase
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

import la_det
from la_det.engine.log import LOGGERS
from la_det.engine.train import Results, logged_results
from la_det.errors import UserError
from la_det.matchers import ATSS
from la_det.structures import AnchorGenerator, DeltaCodec
from tests.tiny_coco import write_tiny_coco

CONFIG = Path(__file__).parents[1] / "cli" / "configs" / "tiny_poto.py"


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Leave other tests the loggers as they were."""
    yield
    setup_logger.cache_clear()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = write_tiny_coco(tmp_path_factory.mktemp("data"))
    return f"coco:{data}/images,{data}/train.json,{data}/images,{data}/val.json"


def iterations(folder: Path) -> list[int]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line["iteration"] for line in lines if "total_loss" in line]


class TestTorchrun:
    """Attempts of a job of torchrun, which starts it again after any failure, also after a refused start."""

    @pytest.fixture
    def attempt(self, dataset, tmp_path, monkeypatch):
        def run(job: str, number: int, *overrides: str, **options: bool) -> None:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # its default: other jobs have it, too
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))
            monkeypatch.setenv(
                "TORCHELASTIC_ERROR_FILE", str(tmp_path / job / f"attempt_{number}" / "0" / "error.json")
            )
            la_det.train(CONFIG, dataset=dataset, overrides=overrides, output=tmp_path / "out", **options)

        return run

    def test_goes_on_with_its_own_run(self, attempt, tmp_path):
        attempt("none_a", 0, "train.max_iter=2")
        attempt("none_a", 1, "train.max_iter=3")
        assert iterations(tmp_path / "out") == [0, 1, 2] and not (tmp_path / "out.old-1").exists()

    @pytest.mark.parametrize("first", ["without torchrun", "with torchrun"])
    def test_leaves_a_run_of_another_job_alone(self, attempt, dataset, tmp_path, first):
        if first == "with torchrun":
            attempt("none_a", 0, "train.max_iter=2")
        else:
            la_det.train(CONFIG, dataset=dataset, overrides=["train.max_iter=2"], output=tmp_path / "out")
        before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*")}
        for number in range(2):
            with pytest.raises(UserError, match="it holds a run; --resume"):
                attempt("none_b", number, "train.max_iter=3")
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*")} == before

    def test_moves_a_run_away_if_the_first_attempt_has_not(self, attempt, tmp_path):
        attempt("none_a", 0, "train.max_iter=2")
        attempt("none_b", 1, "train.max_iter=3", overwrite=True)
        assert iterations(tmp_path / "out.old-1") == [0, 1] and iterations(tmp_path / "out") == [0, 1, 2]
        attempt("none_b", 2, "train.max_iter=4", overwrite=True)
        assert iterations(tmp_path / "out") == [0, 1, 2, 3] and not (tmp_path / "out.old-2").exists()


def same(results: Results) -> dict:
    """Equal where NaN equals NaN."""
    return {task: pytest.approx(metrics, abs=0, rel=0, nan_ok=True) for task, metrics in results.items()}


@pytest.mark.parametrize("ending", ["at its length", "early"])
@pytest.mark.parametrize("test_sets", [1, 2])
def test_resuming_a_finished_run_returns_its_results(dataset, tmp_path, ending, test_sets):
    overrides = ["train.max_iter=3", "train.eval_period=1", "train.ema.enabled=True"]
    if test_sets == 2:
        images, file = dataset.rpartition(",")[0].rpartition(",")[2], dataset.rpartition(",")[2]
        other = Path(shutil.copy(file, tmp_path / "other.json"))
        dataset = f"{dataset},{images},{other}"
    if ending == "early":
        metric = "other/bbox/AP50" if test_sets == 2 else "bbox/AP50"
        overrides += [f"train.best.metric={metric}", "train.best.patience=1", "optimizer.lr=0", "train.max_iter=9"]
    trained = la_det.train(CONFIG, dataset=dataset, overrides=overrides, output=tmp_path / "out")
    assert max(iterations(tmp_path / "out")) == (1 if ending == "early" else 2)
    again = la_det.train(CONFIG, dataset=dataset, overrides=overrides, output=tmp_path / "out", resume=True)
    assert again == same(trained) and len(trained) >= 4 * test_sets


def test_an_average_that_begins_later_begins_at_the_checkpoint(dataset, tmp_path):
    """Also for an evaluation before the first step: one that was interrupted, and is done again."""
    la_det.train(CONFIG, dataset=dataset, overrides=["train.max_iter=2", "train.eval_period=1"], output=tmp_path)
    for name in ("model_final.pth", "metrics.json"):
        (tmp_path / name).unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000000.pth")
    config = LazyConfig.load(str(CONFIG))
    config.train.hooks = [LazyCall(Weights)()]
    overrides = ["train.max_iter=2", "train.eval_period=1", "train.ema.enabled=True"]
    Weights.seen.clear()
    la_det.train(config, dataset=dataset, overrides=overrides, output=tmp_path, resume=True)
    model, average = Weights.seen
    assert all(torch.equal(value, average[name]) for name, value in model.items())
    first, *_ = (line for line in map(json.loads, (tmp_path / "metrics.json").open()) if "bbox/AP50" in line)
    assert first["iteration"] == 0 and first["bbox/AP50"] == pytest.approx(first["bbox_ema/AP50"], nan_ok=True)


class Weights(HookBase):
    """Keeps the weights of the model and of the average as they are before the first step."""

    seen: list[dict[str, torch.Tensor]] = []

    def before_train(self) -> None:
        for model in (self.trainer.model, self.trainer.ema.module):
            self.seen.append({name: value.clone() for name, value in model.state_dict().items()})


def atss() -> DictConfig:
    """The tiny config with ATSS, whose layers have the same shapes."""
    config = LazyConfig.load(str(CONFIG))
    config.model.head.predictors.main.update(
        priors=LazyCall(AnchorGenerator)(sizes=[8.0]), codec=LazyCall(DeltaCodec)(), box_activation="linear"
    )
    config.model.criteria[0].matcher = LazyCall(ATSS)()
    return config


class TestMistakes:
    """What a run and its weights are not for."""

    @pytest.fixture(scope="class")
    def run(self, dataset, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("run") / "out"
        la_det.train(CONFIG, dataset=dataset, overrides=["train.max_iter=1"], output=folder)
        return folder

    @pytest.mark.parametrize("kind", ["evaluation", "resuming"])
    @pytest.mark.parametrize("wrong", ["detector", "classes"])
    def test_is_refused_in_one_line(self, dataset, run, tmp_path, kind, wrong):
        if wrong == "classes":
            content = json.loads(Path(dataset.rpartition(",")[2]).read_text())
            content["categories"].append({"id": 9, "name": "third"})
            (tmp_path / "three.json").write_text(json.dumps(content))
            dataset = f"coco:{dataset.removeprefix('coco:').partition(',')[0]},{tmp_path}/three.json"
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        config = atss() if wrong == "detector" else CONFIG
        options = {"dataset": dataset, "overrides": ["train.max_iter=3"]}
        weights = run / "model_final.pth"
        with pytest.raises(UserError) as error:
            if kind == "evaluation":
                la_det.evaluate(config, weights, **options, output=tmp_path / "out")
            else:
                la_det.train(config, **options, output=run, resume=True)
        said = {
            "classes": f"{weights}: weights of 2 classes, but the config has 3, for the data {dataset}; use data with",
            "evaluation": f"{weights}: these weights do not belong to the config, which has model.head.predictors",
            "resuming": "--resume: model.criteria.0.matcher._target_ was la_det.matchers.POTO and is la_det.matchers.A",
        }
        assert str(error.value).startswith(said[kind if wrong == "detector" else wrong])
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        assert not (tmp_path / "out").exists()

    def test_a_training_can_begin_with_weights_of_another_detector(self, dataset, run, tmp_path):
        options = {"dataset": dataset, "overrides": ["train.max_iter=1"], "output": tmp_path / "out"}
        la_det.train(atss(), weights=run / "model_final.pth", **options)
        assert "the training begins with them nevertheless" in (tmp_path / "out" / "log.txt").read_text()
        la_det.evaluate(atss(), tmp_path / "out" / "model_final.pth", **options)

    def test_checkpoints_of_earlier_versions_are_evaluated(self, dataset, run, tmp_path):
        content = torch.load(run / "model_final.pth")
        assert content.pop("recipe")["network"]["head.predictors.main.priors"] == "PointGenerator"
        torch.save(content, tmp_path / "old.pth")
        la_det.evaluate(atss(), tmp_path / "old.pth", dataset=dataset, output=tmp_path / "out")


def test_logged_results_of_classes_with_a_slash():
    line = {"iteration": 3, "loss": 1.0, "bbox/AP": None, "bbox/AP-a/b": 2.0, "assignment/main/POTO/switched": 0.5}
    found = logged_results([{"bbox/AP": 1.0}, line], ["a"])
    assert found == {"bbox": {"AP": pytest.approx(math.nan, nan_ok=True), "AP-a/b": 2.0}}
    assert logged_results([], ["a"]) == {}


class LosesFolder(HookBase):
    """After iteration 1, another training has the folder, as with --overwrite --break-lock."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def after_step(self) -> None:
        if self.trainer.iter == 1:
            self.folder.rename(self.folder.with_name("old"))
            self.folder.mkdir()
            (self.folder / ".lock").write_text("filelock soft lock\npid=1\nhost=elsewhere\ntoken=other\n")


@pytest.mark.parametrize(
    "writes",
    ["train.checkpointer.period=2", "train.eval_period=2", "train.log_period=2", "train.max_iter=2"],
)
def test_a_training_that_has_lost_its_folder_writes_nothing_there(dataset, tmp_path, writes):
    """Whatever it would write first, and before its heartbeat notices."""
    config = LazyConfig.load(str(CONFIG))
    config.train.hooks = [LazyCall(LosesFolder)(folder=str(tmp_path / "out"))]
    overrides = ["train.max_iter=9", "train.log_period=99", "train.best.metric=bbox/AP", writes]
    with pytest.raises(UserError, match="a training on elsewhere .process 1. has taken its place"):
        la_det.train(config, dataset=dataset, overrides=overrides, output=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
