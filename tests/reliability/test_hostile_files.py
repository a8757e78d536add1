"""Hostile files through every reader: no code runs, one line, no memory, no time."""

import pickle
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from PIL import Image
from safetensors.torch import save_file

from la_det import cli
from la_det.benchmark.memory import peak_extra_mib
from la_det.checkpoint.recipe import write_weights
from la_det.errors import one_line_errors
from la_det.predictor import Predictor
from tests.checkpoint.evil import Evil
from tests.reliability.faults import CONFIG, PERIODS
from tests.tiny_coco import write_tiny_coco

GIGABYTE = 1 << 10  # MiB
SECONDS = 10  # of the processor, for other programs may be busy
CODE = {"_target_": "os.mkdir", "path": "evil_was_here"}
RECIPES = {
    "code": {"model.backbone": CODE},
    "pickle": {"train.allow_pickle": True},
    "size": {"model.backbone.top_block.in_channels": 1 << 40},
}


def damage(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 4
    path.write_bytes(content)


def hostile_weights(folder: Path, weights: dict[str, torch.Tensor]) -> list[Path]:
    """Files of weights that no reader may take."""
    key = next(iter(weights))
    torch.save({"model": weights, "x": Evil()}, folder / "code.pth")
    torch.save({"model": weights, "x": Evil()}, folder / "code_old.pth", _use_new_zipfile_serialization=False)
    (folder / "code.pkl").write_bytes(pickle.dumps({"model": {"a": np.ones(1)}, "__author__": "x", "x": Evil()}))
    for name, overrides in RECIPES.items():
        recipe = {"config": "POTO/poto_r50_fpn_3x_ms_coco", "repository": "x", "overrides": overrides, "network": {}}
        for suffix in ("pth", "safetensors"):
            write_weights(folder / f"recipe_{name}.{suffix}", weights, recipe)
    write_weights(folder / "flipped.safetensors", weights, {})
    damage(folder / "flipped.safetensors", 0.7)
    torch.save({"model": weights}, folder / "flipped.pth")
    damage(folder / "flipped.pth", 0.5)
    whole = (folder / "flipped.pth").read_bytes()
    for share in (0, 0.01, 0.5, 0.999):
        (folder / f"cut_{share}.pth").write_bytes(whole[: int(share * len(whole))])
    with zipfile.ZipFile(folder / "flipped.pth") as old, zipfile.ZipFile(folder / "bomb.pth", "w", 8) as bomb:
        for name in old.namelist():
            bomb.writestr(name, bytes(1 << 28) if name.endswith("data/0") else b"")
    torch.save({"model": weights | {key: torch.zeros(1).expand(1 << 40)}}, folder / "expanded.pth")
    for name, value in {
        "nan": weights[key] * float("nan"),
        "integer": weights[key].long(),
        "meta": torch.empty(1 << 40, device="meta"),
        "sparse": weights[key].to_sparse(),
        "text": "text",
        "none": None,
    }.items():
        torch.save({"model": weights | {key: value}}, folder / f"entry_{name}.pth")
    torch.save([torch.ones(3)], folder / "list.pth")
    torch.save(torch.ones(3), folder / "tensor.pth")
    torch.save({"model": {}}, folder / "empty.pth")
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 50))
    (folder / "memo.pkl").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    save_file({"a": torch.ones(1)}, folder / "other.safetensors")
    (folder / "text.pth").write_text("no checkpoint")
    return sorted(folder.iterdir())


def hostile_configs(folder: Path, good: Path) -> list[Path]:
    """YAML configs that no reader may take."""
    config = yaml.safe_load(good.read_text())
    texts = {
        "tag": good.read_text() + "\nx: !!python/object/apply:os.mkdir [evil_was_here]\n",
        "name": good.read_text() + "\nx: !!python/name:os.mkdir\n",
        "target": yaml.dump(config | {"model": CODE}),
        "deep": yaml.dump(config | {"model": config["model"] | {"criteria": [CODE]}}),
        "reference": yaml.dump(config | {"y": "os.mkdir", "model": CODE | {"_target_": "${..y}"}}),
        "bomb": "\n".join([f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(12)]),
        "cut": good.read_text()[:500],
        "binary": "\x00\x01",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A data set, a run of one iteration, and a picture."""
    root = tmp_path_factory.mktemp("hostile")
    write_tiny_coco(root / "data")
    train(arguments(root, root / "run", "train.max_iter=1"))
    Image.new("RGB", (64, 64)).save(root / "picture.png")
    return root


def arguments(root: Path, output: Path, *options: str) -> list[str]:
    data = root / "data"
    dataset = f"coco:{data}/images,{data}/train.json,{data}/images,{data}/val.json"
    return ["--config-file", str(CONFIG), "--dataset", dataset, f"train.output_dir={output}", *PERIODS, *options]


def train(argv: list[str]) -> None:
    cli.run("train", argv, "train_net.py")


def refuses(read: Callable[[], object], capsys: pytest.CaptureFixture[str], what: str) -> None:
    """The reader ends with one line, soon, and without having taken much memory."""
    status = []

    def attempt() -> None:
        with pytest.raises(SystemExit) as end, one_line_errors():
            read()
        status.append(end.value.code)

    capsys.readouterr()
    start = time.process_time()
    grown = peak_extra_mib(attempt, "cpu")
    seconds = time.process_time() - start
    printed = capsys.readouterr()
    assert status == [2], what
    assert printed.err.count("error: ") == 1 and "Traceback" not in printed.err + printed.out, f"{what}: {printed.err}"
    assert grown < GIGABYTE and seconds < SECONDS, f"{what}: {grown:.0f} MiB, {seconds:.1f} s"
    assert not Path("evil_was_here").exists(), what


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("weights", "out"):
        (tmp_path / name).mkdir()
    model = instantiate(LazyConfig.load(str(CONFIG)).model)
    options = [f"dataloader.test.dataset.names={place / 'data' / 'val.json'}", "train.device=cpu"]
    config = ["--config-file", str(CONFIG), "--weights"]

    def run(*options: str) -> None:
        train(arguments(place, tmp_path / "out" / "run", *options))

    def resume(path: Path) -> None:
        folder = tmp_path / "out" / "resumed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(place / "run" / "config.yaml", folder)
        shutil.copy(path, folder / "model_0000000.pth")
        (folder / "last_checkpoint").write_text("model_0000000.pth")
        before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
        try:
            train(arguments(place, folder, "--resume"))
        finally:
            assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before, path

    readers = {
        "evaluate": lambda path: run("--eval-only", f"train.init_checkpoint={path}"),
        "train": lambda path: run(f"train.init_checkpoint={path}"),
        "resume": resume,
        "convert": lambda path: cli.run("convert", [str(path), str(tmp_path / "out" / "converted.pth")]),
        "Predictor": lambda path: Predictor(place / "run" / "config.yaml", path),
        "demo": lambda path: cli.run(
            "detect",
            [*config, str(path), str(place / "picture.png"), "--output", str(tmp_path / "out"), "--opts", *options],
            "demo.py",
        ),
        "viewer": lambda path: cli.run(
            "show",
            [*config, str(path), "--output", str(tmp_path / "out"), "--num-images", "1", "--opts", *options],
            "show_assignments.py",
        ),
        "export": lambda path: cli.run(
            "export",
            [*config, str(path), "--output", str(tmp_path / "out" / "x.onnx"), "--opts", *options],
            "export_model.py",
        ),
    }
    failures = []
    for path in hostile_weights(tmp_path / "weights", model.state_dict()):
        for name, read in readers.items():
            try:
                refuses(lambda read=read, path=path: read(path), capsys, f"{name} {path.name}")
            except (AssertionError, Exception) as error:
                failures.append(f"{name} {path.name}: {type(error).__name__} {str(error)[:300]}")
            except pytest.fail.Exception:
                failures.append(f"{name} {path.name}: it was read")
    assert not failures, "\n".join(failures)


@pytest.mark.slow
def test_configs(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    picture, weights = str(place / "picture.png"), str(place / "run" / "model_final.pth")
    for path in hostile_configs(tmp_path / "configs", place / "run" / "config.yaml"):
        config = ["--config-file", str(path), "--weights", weights]
        readers = {
            "train": lambda path=path: train(["--config-file", str(path), "train.output_dir=out"]),
            "Predictor": lambda path=path: Predictor(path, weights),
            "demo": lambda config=config: cli.run("detect", [*config, picture], "demo.py"),
            "viewer": lambda config=config: cli.run("show", config, "show_assignments.py"),
            "export": lambda config=config: cli.run("export", [*config, "--output", "x.onnx"], "export_model.py"),
        }
        for name, read in readers.items():
            refuses(read, capsys, f"{name} {path.name}")
