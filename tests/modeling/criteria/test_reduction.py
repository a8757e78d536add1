import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from la_det.modeling.criteria import LossTerm, reduce_losses, reduction


def term(numerator: float, normaliser: float, **options) -> LossTerm:
    return LossTerm(torch.tensor(numerator, requires_grad=True), torch.tensor(normaliser), **options)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (term(6.0, 4.0), 1.5),
        (term(6.0, 0.0), 6.0),  # at least 1
        (term(6.0, 0.25), 6.0),
        (term(6.0, 0.25, floor=0.0), 24.0),
        (term(6.0, 0.0, floor=1e-6), 6e6),
        (term(6.0, 2.0, eps=1.0), 2.0),
        (term(0.0, 0.0, floor=0.0), 0.0),  # nothing to sum
    ],
)
def test_division(loss, expected):
    losses = reduce_losses({"loss": loss})
    assert losses["loss"].item() == pytest.approx(expected)
    losses["loss"].backward()
    assert loss.numerator.grad.isfinite()


def test_average_over_two_processes(monkeypatch):
    """The other one has normalisers of 0."""
    monkeypatch.setattr(reduction.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(reduction.dist, "all_reduce", lambda normalisers: None)
    terms = {"world": term(6.0, 3.0), "local": term(6.0, 3.0, scope="local"), "floor": term(6.0, 3.0, floor=2.0)}
    losses = {name: loss.item() for name, loss in reduce_losses(terms).items()}
    assert losses == pytest.approx({"world": 4.0, "local": 2.0, "floor": 3.0})


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    normaliser = [0.0, 3.0][rank]
    terms = {
        "world": term(6.0, normaliser),
        "local": term(6.0, normaliser, scope="local"),
        "floor": term(6.0, normaliser, floor=2.0),
    }
    losses = {name: loss.item() for name, loss in reduce_losses(terms).items()}
    # The floor holds for the average, 1.5.
    expected = {"world": 4.0, "local": [6.0, 2.0][rank], "floor": 3.0}
    assert losses == pytest.approx(expected)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
