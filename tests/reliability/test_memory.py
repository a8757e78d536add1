"""Memory stays flat over a long training with evaluations, and over many calls of a Predictor."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from la_det import cli
from la_det.engine.hooks import LockHook
from la_det.predictor import Predictor
from tests.reliability.faults import CONFIG
from tests.tiny_coco import write_tiny_coco

PAGE = os.sysconf("SC_PAGE_SIZE")
MEGABYTES = 40  # that may come and go


def resident() -> float:
    """Memory of this process in MB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_flat(tmp_path, monkeypatch):
    data = write_tiny_coco(tmp_path / "data")
    seen: dict[int, float] = {}

    def look(hook: LockHook) -> None:
        if hook.trainer.iter % 100 == 99:
            seen[hook.trainer.iter + 1] = resident()
            print(f"iteration {hook.trainer.iter + 1}: {resident():.0f} MB", flush=True)

    monkeypatch.setattr(LockHook, "after_step", look)
    dataset = f"coco:{data}/images,{data}/train.json,{data}/images,{data}/val.json"
    periods = ["train.max_iter=1000", "train.eval_period=33", "train.checkpointer.period=500", "train.log_period=20"]
    argv = ["--config-file", str(CONFIG), "--dataset", dataset, f"train.output_dir={tmp_path / 'out'}", *periods]
    cli.run("train", [*argv, "train.ema.enabled=True", "train.diagnostics_period=50"], "train_net.py")
    assert seen[1000] - seen[300] < MEGABYTES

    predictor = Predictor(tmp_path / "out" / "config.yaml", tmp_path / "out" / "model_final.pth")
    image = np.zeros((48, 64, 3), np.uint8)
    for i in range(1, 301):
        predictor([image] * 2)
        if i % 50 == 0:
            seen[i] = resident()
    print("Predictor:", {i: round(seen[i]) for i in range(50, 301, 50)}, "MB")
    assert seen[300] - seen[100] < MEGABYTES
