from types import SimpleNamespace

import pytest
import torch

from la_det.checkpoint import Checkpointer
from la_det.engine.hooks import BestCheckpoint, CheckpointHook, Periods
from la_det.engine.lock import RunLock
from la_det.errors import UserError


def run(folder, start, max_iter, period=2, max_to_keep=2, evaluation=0):
    periods = Periods(log=1, evaluation=evaluation, checkpoint=period)
    hook = CheckpointHook(Checkpointer(torch.nn.Linear(1, 1), str(folder)), periods, max_to_keep)
    hook.trainer = SimpleNamespace(iter=start, max_iter=max_iter, stopping=False)
    for hook.trainer.iter in range(start, max_iter):
        hook.after_step()
    return sorted(path.name for path in folder.glob("*.pth"))


def test_keeps_the_newest_and_the_final_one(tmp_path):
    assert run(tmp_path, 0, 9) == ["model_0000005.pth", "model_0000007.pth", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_goes_on_counting_when_resumed(tmp_path):
    run(tmp_path, 0, 7)
    (tmp_path / "model_final.pth").unlink()
    assert run(tmp_path, 6, 8, period=3) == ["model_0000003.pth", "model_0000005.pth", "model_final.pth"]
    assert run(tmp_path, 8, 10, period=9)[:2] == ["model_0000005.pth", "model_0000008.pth"]


def test_leaves_an_earlier_longer_run_alone(tmp_path):
    (tmp_path / "model_0099999.pth").touch()
    assert run(tmp_path, 0, 7) == ["model_0000003.pth", "model_0000005.pth", "model_0099999.pth", "model_final.pth"]


def test_saves_before_every_evaluation(tmp_path):
    names = run(tmp_path, 0, 7, period=4, evaluation=3, max_to_keep=9)
    assert names == ["model_0000002.pth", "model_0000003.pth", "model_0000005.pth", "model_final.pth"]


def test_best_weights_are_not_written_without_the_lock(tmp_path):
    """Another training can take the folder during an evaluation."""
    with RunLock(tmp_path).held() as lock:
        weights = Checkpointer(torch.nn.Linear(1, 1), str(tmp_path), before_write=lock.check)
        best = BestCheckpoint(weights, [], metric="AP")
        best.take({"AP": 1.0}, 0)
        (tmp_path / "model_best.pth").unlink()
        lock.path.unlink()
        with pytest.raises(UserError, match=".lock in it is gone"):
            best.take({"AP": 2.0}, 1)
    assert not list(tmp_path.iterdir())
