import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from la_det import cli
from la_det.config import load_yaml_config, save_yaml_config
from la_det.engine.lock import RunLock

ROOT = Path(__file__).parents[2]
TRAIN_NET = ROOT / "tools" / "train_net.py"
CONFIG = Path(__file__).parent / "configs" / "tiny_poto.py"


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    dataset = f"coco:{data}/images,{data}/train.json,{data}/images,{data}/val.json"
    return ["--config-file", str(CONFIG), "--dataset", dataset, f"train.output_dir={output}", *more]


def run_here(argv: list[str]) -> None:
    cli.run("train", argv, "train_net.py")


def command(launcher: list[str], argv: list[str]) -> dict:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {"args": [*launcher, str(TRAIN_NET), *argv], "env": environment, "cwd": ROOT}


def losses(output: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return {r["iteration"]: {k: v for k, v in r.items() if "loss" in k} for r in lines if "total_loss" in r}


def metrics(output: Path, part: str) -> list[dict[str, float]]:
    """Those whose name contains `part`, of each line of metrics.json that has some."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [found for line in lines if (found := {k: v for k, v in line.items() if part in k})]


def results(printed: str) -> str:
    """The last tables of an evaluation."""
    lines = printed[printed.rindex("Results:\n") :].splitlines()
    return "\n".join(line for line in lines if not line.startswith("[")).rstrip()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parameters(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]):
    """Runs the command line in this process, expects that it fails, and returns its one line."""

    def run(argv: list[str]) -> str:
        with pytest.raises(SystemExit) as failure:
            run_here(argv)
        assert failure.value.code == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert captured.err.rstrip().endswith(line)
        return line

    return run


def test_trains_evaluates_and_evaluates_again_with_the_same_result(tiny_coco, tmp_path, capsys):
    run_here(arguments(tiny_coco, tmp_path, "train.eval_period=2", "train.ema.enabled=True", "train.ema.decay=0.5"))
    assert {"model_final.pth", "metrics.json", "config.yaml", "predictions.png"} <= set(os.listdir(tmp_path))
    assert [p.name for p in tmp_path.glob("events.out.tfevents*")]
    assert sorted(losses(tmp_path)) == [0, 1, 2, 3]
    trained = capsys.readouterr().out
    assert "2 classes (left, right)" in trained
    final = f"train.init_checkpoint={tmp_path / 'model_final.pth'}"
    run_here(arguments(tiny_coco, tmp_path / "eval", "--eval-only", "train.ema.enabled=True", final))
    again = capsys.readouterr().out
    run_here(arguments(tiny_coco, tmp_path, "--eval-only", "--resume", "train.ema.enabled=True"))
    last = capsys.readouterr().out
    tables = results(again)
    assert all(f"| {task} " in tables for task in ("bbox", "bbox_ema", "nms_gap", "nms_gap_ema"))
    assert tables in trained
    assert results(last) == tables
    assert {"nms_gap/gap", "nms_gap_ema/duplicates", "bbox/AP"} <= metrics(tmp_path, "/")[-1].keys()
    scalars = EventAccumulator(str(tmp_path)).Reload()
    assert len(scalars.Scalars("nms_gap/AP_without_nms")) == 2


def test_all_flags_of_the_command_reach_the_training(monkeypatch):
    seen = {}
    monkeypatch.setattr("la_det.api.train", lambda config, **options: seen.update(options, config=config))
    argv = "train NAME --dataset yolo:data.yaml --epochs 36 --image-size 640 --backbone timm:convnext_tiny --batch 8"
    assert cli.main([*argv.split(), "--from", "a.pth", "--output", "out", "--resume", "--break-lock", "a.b=1"]) == 0
    assert seen == {
        "config": "NAME",
        "dataset": "yolo:data.yaml",
        "epochs": 36,
        "image_size": 640,
        "backbone": "timm:convnext_tiny",
        "batch": 8,
        "weights": "a.pth",
        "overrides": ["a.b=1"],
        "output": Path("out"),
        "resume": True,
        "overwrite": False,
        "break_lock": True,
    }


class TestOutputFolder:
    """A run there is never written over."""

    @pytest.fixture(scope="class")
    def run(self, tiny_coco, tmp_path_factory) -> Path:
        output = tmp_path_factory.mktemp("run") / "out"
        run_here(arguments(tiny_coco, output, "train.max_iter=2"))
        return output

    @pytest.fixture
    def copy(self, run, tmp_path) -> Path:
        return Path(shutil.copytree(run, tmp_path / "out"))

    def test_forgotten_resume(self, error, tiny_coco, copy):
        before = files(copy)
        line = error(arguments(tiny_coco, copy))
        assert f"{copy}: it holds a run; --resume" in line and files(copy) == before

    def test_overwrite_keeps_the_old_run_whole(self, tiny_coco, copy):
        before = files(copy)
        run_here(arguments(tiny_coco, copy, "--overwrite", "train.max_iter=1"))
        assert files(copy.with_name("out.old-1")) == before
        assert sorted(losses(copy)) == [0] and not (copy / ".lock").exists()

    def test_resume_without_a_checkpoint_says_so(self, tiny_coco, tmp_path, capsys):
        run_here(arguments(tiny_coco, tmp_path, "--resume", "train.max_iter=1"))
        assert "HOLDS NO CHECKPOINT; the training begins at iteration 0" in capsys.readouterr().out

    def test_evaluation_has_a_folder_of_its_own(self, tiny_coco, copy):
        before = files(copy)
        run_here(arguments(tiny_coco, copy, "--eval-only", "--resume"))
        folder = copy / "evaluation" / "model_final"
        assert {path: content for path, content in files(copy).items() if "evaluation" not in path} == before
        assert {path.name for path in folder.iterdir()} == {
            "config.yaml",
            "log.txt",
            "predictions.json",
            "results.json",
        }
        results = json.loads((folder / "results.json").read_text())
        assert results["checkpoint"] == str(copy / "model_final.pth") and "AP" in results["bbox"]
        predictions = json.loads((folder / "predictions.json").read_text())
        assert {p["category_id"] for p in predictions} <= {3, 7} and {p["image_id"] for p in predictions} <= set(
            range(13)
        )

    def test_resuming_a_finished_run_changes_nothing_that_counts(self, tiny_coco, copy, capsys):
        before = files(copy)
        run_here(arguments(tiny_coco, copy, "--resume", "train.max_iter=2"))
        after = files(copy)
        same = {"metrics.json", "model_final.pth", "last_checkpoint"}
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert "WARNING" not in capsys.readouterr().out

    def test_what_changed_is_applied_and_shown(self, tiny_coco, copy, capsys):
        options = ["train.max_iter=4", "optimizer.lr=0.5", "train.ema.enabled=True", "train.amp.enabled=True"]
        run_here(arguments(tiny_coco, copy, "--resume", *options))
        out = capsys.readouterr().out
        assert "| optimizer.lr " in out and "| train.max_iter " in out and "| train.ema.enabled " in out
        saved = torch.load(copy / "model_final.pth", weights_only=True)
        assert saved["ema"]["n_averaged"] == 2 and saved["trainer"]["grad_scaler"]
        assert {group["initial_lr"] for group in saved["trainer"]["optimizer"]["param_groups"]} == {0.5}
        assert sorted(losses(copy)) == [0, 1, 2, 3]
        assert load_yaml_config(copy / "config.yaml").optimizer.lr == 0.5

    def test_what_cannot_be_applied_is_refused(self, error, tiny_coco, copy):
        before = files(copy)
        argv = arguments(tiny_coco, copy, "--resume", "train.max_iter=4")
        assert "model.pixel_mean was" in error([*argv, "model.pixel_mean=[1,2,3]"])
        assert "is of iteration 1 already" in error(arguments(tiny_coco, copy, "--resume", "train.max_iter=1"))
        assert files(copy) == before

    @pytest.mark.parametrize(
        ("alter", "message"),
        [
            (lambda state: state.pop("iteration"), "'iteration'"),
            (lambda state: state.update(iteration=-3), "its iteration is -3"),
            (lambda state: state.update(iteration="many"), "its iteration is 'many'"),
            (lambda state: state.update(optimizer=[]), "is not of this run"),
            (lambda state: state["optimizer"].update(state=None), "is not of this run"),
            (lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.ones(3)), r"of shape \[3\]"),
            (lambda state: state["random_states"][0].update(torch=torch.ones(3)), "is not of this run"),
            (lambda state: state.update(scalars=7), "is not of this run"),
        ],
    )
    def test_altered_trainer_state(self, error, tiny_coco, copy, alter, message):
        checkpoint = torch.load(copy / "model_final.pth", weights_only=True)
        alter(checkpoint["trainer"])
        torch.save(checkpoint, copy / "model_final.pth")
        before = files(copy)
        line = error(arguments(tiny_coco, copy, "--resume", "train.max_iter=4"))
        assert re.search(f"model_final.pth: what it holds beside the weights .*{message}", line)
        assert files(copy) == before

    def test_running_training_is_left_alone(self, error, tiny_coco, copy):
        with RunLock(copy).held():
            line = error(arguments(tiny_coco, copy, "--resume", "train.max_iter=4"))
        assert f"a training runs in it (process {os.getpid()} on " in line


def test_best_weights_and_the_end_of_a_run_that_gets_no_better(tiny_coco, tmp_path, monkeypatch):
    values = iter([3.0, 5.0, 4.0, 5.0, 9.0])
    monkeypatch.setattr("la_det.engine.train.evaluate_model", lambda *args: {"bbox": {"AP": next(values)}})
    options = ["train.eval_period=1", "train.max_iter=9", "train.best.metric=bbox/AP", "train.best.patience=2"]
    run_here(arguments(tiny_coco, tmp_path, *options))
    assert [line["bbox/AP"] for line in metrics(tmp_path, "bbox/AP")] == [3, 5, 4, 5]
    best, final = (torch.load(tmp_path / f"model_{n}.pth", weights_only=True) for n in ("best", "final"))
    assert best["iteration"] == 1 and final["trainer"]["iteration"] == 3
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    # What was best is known after resuming, too, and that the run had ended.
    run_here(arguments(tiny_coco, tmp_path, "--resume", *options))
    assert len(metrics(tmp_path, "bbox/AP")) == 4
    run_here(arguments(tiny_coco, tmp_path, "--resume", *options, "train.max_iter=5", "train.best.patience=0"))
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == 5


def test_metric_that_no_evaluation_has(error, tiny_coco, tmp_path):
    line = error(arguments(tiny_coco, tmp_path, "train.eval_period=1", "train.best.metric=AP"))
    assert "train.best.metric=AP: no such metric; the evaluation has bbox/AP, " in line


class Counter(HookBase):
    """A hook of one's own."""

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("mine/steps", self.trainer.iter + 1, smoothing_hint=False)


def test_own_hooks_and_writers(tiny_coco, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "from detectron2.config import LazyCall as L, LazyConfig\n"
        f"from {__name__} import Counter\n"
        "from detectron2.utils.events import JSONWriter\n"
        f"cfg = LazyConfig.load({str(CONFIG)!r})\n"
        "train, model, optimizer, lr_multiplier, dataloader = (cfg[key] for key in\n"
        "    ('train', 'model', 'optimizer', 'lr_multiplier', 'dataloader'))\n"
        f"train.update(hooks=[L(Counter)()], writers=[L(JSONWriter)(json_file={str(tmp_path / 'mine.json')!r})])\n"
    )
    argv = arguments(tiny_coco, tmp_path / "out", "train.max_iter=2")
    run_here(["--config-file", str(config), *argv[2:]])
    assert [line["mine/steps"] for line in metrics(tmp_path / "out", "mine/steps")] == [1, 2]
    assert (tmp_path / "mine.json").read_text().count("total_loss") == 2
    run_here(["--config-file", str(config), *argv[2:], "--resume", "train.max_iter=3"])
    assert [line["mine/steps"] for line in metrics(tmp_path / "out", "mine/steps")] == [1, 2, 3]


def test_nothing_is_left_of_a_start_that_fails(error, tiny_coco, tmp_path):
    error(arguments(tiny_coco, tmp_path / "out", "train.init_checkpoint=gone.pth"))
    assert not (tmp_path / "out").exists()


def test_saved_config_is_a_config_file(tiny_coco, tmp_path):
    run_here(arguments(tiny_coco, tmp_path, "train.max_iter=1"))
    cfg = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert cfg.train.max_iter == 1 and cfg.model.max_iter == 1 and cfg.model.num_classes == 2
    model = instantiate(cfg.model)
    model.load_state_dict(parameters(tmp_path))
    save_yaml_config(cfg, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()


def test_looking_at_the_assignment_changes_nothing(tiny_coco, tmp_path):
    for period in (0, 1):
        run_here(arguments(tiny_coco, tmp_path / str(period), "train.max_iter=3", f"train.diagnostics_period={period}"))
    assert losses(tmp_path / "0") == losses(tmp_path / "1")
    weights, others = parameters(tmp_path / "0"), parameters(tmp_path / "1")
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert not metrics(tmp_path / "0", "assignment/")
    first, second, _ = metrics(tmp_path / "1", "assignment/main/POTO/")
    assert "assignment/main/POTO/positives_p3" in first and "assignment/main/POTO/switched" not in first
    assert 0 <= second["assignment/main/POTO/switched"] <= 1
    scalars = EventAccumulator(str(tmp_path / "1")).Reload()
    assert len(scalars.Scalars("assignment/main/POTO/conflicts")) == 3


# A training whose process ends at once before or after a writer has written iteration 3.
DIES = """
import os, sys
from detectron2.utils.events import get_event_storage
from la_det import cli
from la_det.engine import writers

kind, before = getattr(writers, sys.argv[1]), sys.argv[2] == "before"
write = kind.write

def dying(self):
    if get_event_storage().iter == 3 and before:
        os._exit(9)
    write(self)
    if get_event_storage().iter == 3:
        os._exit(9)

kind.write = dying
cli.run("train", sys.argv[3:], "train_net.py")
"""


@pytest.mark.parametrize("moment", ["TensorBoardWriter before", "MetricsWriter before", "MetricsWriter after"])
def test_a_kill_between_the_writers_loses_and_repeats_nothing(tiny_coco, tmp_path, moment):
    argv = arguments(tiny_coco, tmp_path, "train.max_iter=5", "train.checkpointer.period=2")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    died = subprocess.run([sys.executable, "-c", DIES, *moment.split(), *argv], env=environment, cwd=ROOT)
    assert died.returncode == 9
    run_here([*argv, "--resume"])
    assert list(losses(tmp_path)) == list(range(5))
    steps = [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("total_loss")]
    assert steps == list(range(5))


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bits(tiny_coco, tmp_path):
    options = ["train.max_iter=10", "train.checkpointer.period=2", "train.ema.enabled=True"]
    options.append("train.diagnostics_period=2")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(**command([sys.executable], arguments(tiny_coco, whole, *options)), check=True)

    # Another number of loader workers must not matter.
    argv = arguments(tiny_coco, killed, *options, "dataloader.train.num_workers=2")
    process = subprocess.Popen(**command([sys.executable], argv))
    stop_at = random.randint(3, 8)
    while process.poll() is None and not (killed / "metrics.json").exists():
        time.sleep(0.01)
    while process.poll() is None and len((killed / "metrics.json").read_text().splitlines()) < stop_at:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model_final.pth").exists(), "finished before it was killed"
    subprocess.run(**command([sys.executable], [*argv, "--resume"]), check=True)

    assert losses(killed) == losses(whole)
    assert metrics(killed, "assignment/") == metrics(whole, "assignment/")
    steps = [event.step for event in EventAccumulator(str(killed)).Reload().Scalars("total_loss")]
    assert steps == list(range(10))
    final, expected = parameters(killed), parameters(whole)
    assert final.keys() == expected.keys()
    assert all(torch.equal(final[name], expected[name]) for name in final)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "num_gpus"])
def test_two_processes_train_as_one(tiny_coco, tmp_path, launcher):
    """One global batch of images of one size, and norms that do not look at it, give the same losses and weights."""
    data, alone, together = tmp_path / "data", tmp_path / "alone", tmp_path / "together"
    shutil.copytree(tiny_coco, data)
    content = json.loads((data / "train.json").read_text())
    content["images"] = [image for image in content["images"] if image["width"] == 64]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    (data / "train.json").write_text(json.dumps(content))
    options = [f"model.backbone.bottom_up.{part}.norm=FrozenBN" for part in ("stem", "stages")]
    options.append("train.diagnostics_period=2")

    run_here(arguments(data, alone, *options))
    if launcher == "torchrun":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        spec = command(start, arguments(data, together, *options))
    else:
        flags = ["--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{random.randint(20000, 60000)}"]
        spec = command([sys.executable], arguments(data, together, *flags, *options))
    done = subprocess.run(**spec, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu" in done.stdout
    assert len(torch.load(together / "model_final.pth", weights_only=True)["trainer"]["random_states"]) == 2

    assert len(metrics(together, "assignment/")) == 2
    expected = losses(alone)
    assert {i: pytest.approx(terms, rel=1e-5) for i, terms in losses(together).items()} == expected
    weights, expected_weights = parameters(together), parameters(alone)
    for name in expected_weights:
        torch.testing.assert_close(weights[name], expected_weights[name], rtol=1e-4, atol=1e-6)


def test_several_test_sets_and_one_without_annotations(tiny_coco, tmp_path):
    """Each has results of its own; without annotations, detections are written for whoever has them."""
    content = json.loads((tiny_coco / "val.json").read_text())
    (tmp_path / "half.json").write_text(json.dumps(content | {"images": content["images"][:6]}))
    del content["annotations"]
    (tmp_path / "hidden.json").write_text(json.dumps(content))
    files = [tiny_coco / "train.json", tiny_coco / "val.json", tmp_path / "half.json", tmp_path / "hidden.json"]
    dataset = "coco:" + ",".join(f"{tiny_coco}/images,{file}" for file in files)
    output, options = tmp_path / "out", ["train.max_iter=1", "+model.inference.score_threshold=0"]
    run_here(["--config-file", str(CONFIG), "--dataset", dataset, f"train.output_dir={output}", *options])
    (found,) = metrics(output, "bbox/AP50")
    assert set(found) == {"val/bbox/AP50", "half/bbox/AP50"}
    written = json.loads((output / "inference" / "hidden" / "predictions.json").read_text())
    assert {d["image_id"] for d in written} <= set(range(1, 13)) and {d["category_id"] for d in written} <= {3, 7}
    assert len(written) > 0 and [path.name for path in (output / "inference").iterdir()] == ["hidden"]
    classes = torch.load(output / "model_final.pth", weights_only=True)["classes"]
    assert classes == {"names": ["left", "right"], "ids": [3, 7]}
    assert LazyConfig.load(str(output / "config.yaml")).dataloader.classes == classes


def test_predictions_of_test_sets_whose_names_end_like_ema(tiny_coco, tmp_path):
    """Each evaluation of each set has a file of its own."""
    for name in ("val_ema", "val_ema_ema"):
        (tmp_path / f"{name}.json").write_text((tiny_coco / "val.json").read_text())
    files = [tiny_coco / "val.json", tmp_path / "val_ema.json", tmp_path / "val_ema_ema.json"]
    sets = ",".join(f"'coco:{tiny_coco}/images,{file}'" for file in files)
    options = ["train.max_iter=1", "train.ema.enabled=True", f"dataloader.test.dataset.names=[{sets}]"]
    run_here(arguments(tiny_coco, tmp_path / "out", *options))
    run_here(arguments(tiny_coco, tmp_path / "out", "--eval-only", "--resume", *options))
    folder = tmp_path / "out" / "evaluation" / "model_final"
    written = {str(path.relative_to(folder)) for path in folder.rglob("predictions*.json")}
    assert written == {
        f"{name}/predictions{suffix}.json" for name in ("val", "val_ema", "val_ema_ema") for suffix in ("", "_ema")
    }


@pytest.mark.slow
def test_own_data_with_a_config_of_crowds(tiny_coco, tmp_path, capsys):
    """Its evaluator is CrowdHuman's; one's own data is COCO's."""
    dataset = f"coco:{tiny_coco}/images,{tiny_coco}/train.json"
    config = "LLA/lla_r18_fpn_shapes_crowd"
    options = ["train.max_iter=1", "train.device=cpu", f"train.output_dir={tmp_path}", "dataloader.test.num_workers=0"]
    run_here(["--config-file", config, "--dataset", dataset, *options, "dataloader.train.num_workers=0"])
    assert "| bbox " in capsys.readouterr().out


class TestBadInput:
    def test_missing_config(self, error):
        assert "no_such.py: no such config file" in error(["--config-file", "no_such.py"])

    def test_unknown_option(self, error, tiny_coco, tmp_path):
        line = error(arguments(tiny_coco, tmp_path, "train.max_itr=3"))
        assert "train.max_itr=3" in line and "did you mean train.max_iter?" in line

    def test_missing_annotations(self, error, tiny_coco, tmp_path):
        (tmp_path / "images").mkdir()
        assert f"{tmp_path}/train.json: no such file" in error(arguments(tmp_path, tmp_path / "out"))

    def test_missing_image(self, error, tiny_coco, tmp_path):
        shutil.copytree(tiny_coco, tmp_path / "data")
        (tmp_path / "data" / "images" / "4.jpg").unlink()
        line = error(arguments(tmp_path / "data", tmp_path / "out"))
        assert f"1 of its 12 image files are missing, the first is {tmp_path}/data/images/4.jpg" in line

    @pytest.mark.parametrize("workers", [0, 1])
    def test_broken_image(self, error, tiny_coco, tmp_path, workers):
        shutil.copytree(tiny_coco, tmp_path / "data")
        broken = tmp_path / "data" / "images" / "4.jpg"
        broken.write_bytes(broken.read_bytes()[:300])
        line = error(arguments(tmp_path / "data", tmp_path / "out", f"dataloader.train.num_workers={workers}"))
        assert f"{broken}: cannot read this image" in line

    def test_malformed_json(self, error, tiny_coco, tmp_path):
        shutil.copytree(tiny_coco, tmp_path / "data")
        (tmp_path / "data" / "val.json").write_text('{"images": [')
        line = error(arguments(tmp_path / "data", tmp_path / "out"))
        assert f"{tmp_path}/data/val.json: malformed JSON" in line

    def test_unknown_category(self, error, tiny_coco, tmp_path):
        shutil.copytree(tiny_coco, tmp_path / "data")
        content = json.loads((tiny_coco / "train.json").read_text())
        content["annotations"][4]["category_id"] = 99
        (tmp_path / "data" / "train.json").write_text(json.dumps(content))
        line = error(arguments(tmp_path / "data", tmp_path / "out"))
        assert "train.json" in line and "annotations[4] (id 5, image '1.jpg'): category_id 99" in line

    def test_degenerate_boxes_are_dropped_with_one_counted_warning(self, tiny_coco, tmp_path, capsys):
        shutil.copytree(tiny_coco, tmp_path / "data")
        content = json.loads((tiny_coco / "train.json").read_text())
        for i, box in enumerate([[70, 70, 9, 9], [5, 5, 0, 9], [5, float("nan"), 9, 9]]):
            content["annotations"][i]["bbox"] = box
        (tmp_path / "data" / "train.json").write_text(json.dumps(content))
        run_here(arguments(tmp_path / "data", tmp_path / "out", "train.max_iter=1"))
        (warning,) = [line for line in capsys.readouterr().out.splitlines() if "dropped" in line]
        assert "train.json: annotations[0] of image '0.jpg': box [70, 70, 9, 9]: dropped" in warning
        assert "[and 2 more: " in warning

    def test_box_that_is_no_box(self, error, tiny_coco, tmp_path):
        shutil.copytree(tiny_coco, tmp_path / "data")
        content = json.loads((tiny_coco / "train.json").read_text())
        content["annotations"][0]["bbox"] = [1, 2, "three", 4]
        (tmp_path / "data" / "train.json").write_text(json.dumps(content))
        line = error(arguments(tmp_path / "data", tmp_path / "out"))
        assert "train.json: annotations[0] (id 1, image '0.jpg'): bbox is [1, 2, 'three', 4]" in line

    def test_nothing_to_train_on(self, error, tiny_coco, tmp_path):
        content = json.loads((tiny_coco / "train.json").read_text())
        (tmp_path / "empty.json").write_text(json.dumps(content | {"annotations": []}))
        dataset = f"coco:{tiny_coco}/images,{tmp_path}/empty.json,{tiny_coco}/images,{tiny_coco}/val.json"
        line = error(["--config-file", str(CONFIG), "--dataset", dataset, f"train.output_dir={tmp_path}/out"])
        assert "empty.json: no image has an object; there is nothing to train on" in line

    def test_checkpoint_with_code(self, error, tiny_coco, tmp_path):
        path = tmp_path / "code.pth"
        torch.save({"model": {}, "code": subprocess.Popen}, path)
        line = error(arguments(tiny_coco, tmp_path / "out", f"train.init_checkpoint={path}"))
        assert str(path) in line and "train.allow_pickle=True" in line

    def test_other_number_of_classes(self, error, tmp_path, monkeypatch):
        argv = ["--config-file", str(CONFIG), f"train.output_dir={tmp_path}", "dataloader.train.dataset.names=three"]
        argv.append("dataloader.test.dataset.names=three")
        from detectron2.data import DatasetCatalog, MetadataCatalog

        annotation = {"bbox": [0, 0, 4, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        record = {"file_name": "a.jpg", "image_id": 1, "width": 8, "height": 8, "annotations": [annotation]}
        DatasetCatalog.register("three", lambda: [record])
        MetadataCatalog.get("three").thing_classes = ["a", "b", "c"]
        try:
            assert "three: the data set has 3 classes, the config 2; set model.num_classes=3" in error(argv)
        finally:
            DatasetCatalog.remove("three")
            MetadataCatalog.remove("three")

    def test_checkpoint_of_another_model(self, error, tiny_coco, tmp_path):
        path = tmp_path / "other.pth"
        torch.save({"model": torch.nn.Linear(2, 2).state_dict()}, path)
        line = error(arguments(tiny_coco, tmp_path / "out", f"train.init_checkpoint={path}"))
        assert f"{path}: this checkpoint is of another model" in line

    def test_missing_checkpoint(self, error, tiny_coco, tmp_path):
        line = error(arguments(tiny_coco, tmp_path, "--eval-only", "train.init_checkpoint=no_such.pth"))
        assert "no_such.pth: cannot get this checkpoint" in line

    def test_nothing_to_evaluate(self, error, tiny_coco, tmp_path):
        assert "give train.init_checkpoint=FILE" in error(arguments(tiny_coco, tmp_path, "--eval-only"))

    def test_no_ema_weights_to_evaluate(self, error, tiny_coco, tmp_path):
        run_here(arguments(tiny_coco, tmp_path, "train.max_iter=1"))
        line = error(arguments(tiny_coco, tmp_path, "--eval-only", "--resume", "train.ema.enabled=True"))
        assert "model_final.pth: it holds no EMA weights" in line

    def test_accumulation_that_does_not_divide_the_batch(self, error, tiny_coco, tmp_path):
        assert "train.grad_accum_steps=3 does not divide" in error(
            arguments(tiny_coco, tmp_path, "train.grad_accum_steps=3")
        )

    def test_output_folder_that_cannot_be_made(self, error, tiny_coco, tmp_path):
        (tmp_path / "file").write_text("")
        line = error(arguments(tiny_coco, tmp_path / "file" / "out"))
        assert str(tmp_path / "file") in line and "choose another output folder" in line

    @pytest.mark.slow
    def test_full_output_folder(self, tiny_coco, tmp_path):
        limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2); "
        limit += "from la_det.cli import run; sys.exit(run('train', sys.argv[2:], 'train_net.py'))"
        argv = arguments(tiny_coco, tmp_path, "train.max_iter=1")
        done = subprocess.run(**command([sys.executable, "-c", limit], argv), capture_output=True, text=True)
        assert done.returncode == 2
        assert str(tmp_path / "model_final.pth") in done.stderr.splitlines()[-1]
        assert not list(tmp_path.glob("*model_final*"))

    @pytest.mark.parametrize("more", [[], ["train.log_period=9"], ["train.log_period=9", "train.eval_period=2"]])
    def test_loss_that_is_not_finite(self, error, tiny_coco, tmp_path, more):
        line = error(arguments(tiny_coco, tmp_path, "optimizer.lr=1e30", "train.max_iter=6", *more))
        assert "iteration 1: " in line and "images/" in line
        (dump,) = tmp_path.glob("non_finite_*_rank0.pth")
        batch = torch.load(dump, weights_only=False)["batch"]
        assert len(batch) == 4 and batch[0]["file_name"] in line
