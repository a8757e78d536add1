import copy

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage
from torch import nn

from la_det.checkpoint import Checkpointer, newest_intact
from la_det.engine import Trainer
from la_det.engine.optimizers import EMA, SGD
from la_det.errors import UserError


class Toy(nn.Module):
    """Mean squared error of a linear model with dropout; `bad_at` makes the loss of that iteration NaN."""

    def __init__(self, dropout: float = 0.0, bad_at: int = -1):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)
        self.bad_at = bad_at
        self.dtypes, self.iterations = set(), []

    def forward(self, batch):
        self.iterations.append(get_event_storage().iter)
        x = torch.stack([record["x"] for record in batch])
        y = self.linear(self.dropout(x))
        self.dtypes.add(y.dtype)
        fit = (y.float() - 1).square().mean()
        scale = float("nan") if self.iterations[-1] == self.bad_at else 1.0
        return {"loss_fit": fit * scale, "loss_size": 0.1 * self.linear.weight.square().sum()}


class Data:
    """Endless batches whose content is a function of their number."""

    start = 0

    def __iter__(self):
        i = self.start
        while True:
            generator = torch.Generator().manual_seed(i)
            yield [{"x": torch.randn(3, generator=generator), "file_name": f"{i}_{j}.jpg"} for j in range(4)]
            i += 1


class Record(HookBase):
    def __init__(self):
        self.losses = []

    def after_step(self):
        latest = self.trainer.storage.latest()
        self.losses.append([latest[name][0] for name in ("total_loss", "loss_fit", "loss_size")])


def make(model=None, momentum=0.9, lr=0.1, **kwargs):
    torch.manual_seed(0)
    model = model or Toy()
    trainer = Trainer(model, Data(), torch.optim.SGD(model.parameters(), lr, momentum), **kwargs)
    record = Record()
    trainer.register_hooks([record])
    return trainer, record


def test_losses_are_those_of_the_model():
    trainer, record = make()
    model = copy.deepcopy(trainer.model)
    trainer.train(0, 2)
    x = torch.stack([r["x"] for r in next(iter(Data()))])
    fit, size = (model.linear(x) - 1).square().mean(), 0.1 * model.linear.weight.square().sum()
    assert record.losses[0] == pytest.approx([(fit + size).item(), fit.item(), size.item()])
    assert trainer.model.iterations == [0, 1]
    assert trainer.storage.latest()["data_time"][0] >= 0


@pytest.mark.parametrize("steps", [2, 4])
def test_accumulated_gradients_equal_those_of_the_whole_batch(steps):
    whole, whole_losses = make()
    parts, part_losses = make(grad_accum_steps=steps)
    whole.train(0, 3)
    parts.train(0, 3)
    assert torch.tensor(part_losses.losses).allclose(torch.tensor(whole_losses.losses))
    assert parts.model.linear.weight.allclose(whole.model.linear.weight)
    assert len(parts.model.iterations) == 3 * steps


@pytest.mark.parametrize("per_parameter", [False, True])
def test_gradients_are_clipped(per_parameter):
    trainer, _ = make(momentum=0.0, lr=1.0, clip_grad_norm=0.01, clip_per_parameter=per_parameter)
    before = copy.deepcopy(trainer.model)
    trainer.train(0, 1)
    steps = [p - q for p, q in zip(trainer.model.parameters(), before.parameters(), strict=True)]
    norms = torch.stack([step.norm() for step in steps])
    expected = norms if per_parameter else norms.norm()
    assert torch.allclose(expected, torch.tensor(0.01), rtol=1e-3)


def test_bfloat16():
    trainer, record = make(amp_dtype=torch.bfloat16)
    plain, expected = make()
    trainer.train(0, 3)
    plain.train(0, 3)
    assert trainer.model.dtypes == {torch.bfloat16} and not trainer.grad_scaler.is_enabled()
    assert torch.tensor(record.losses).allclose(torch.tensor(expected.losses), rtol=0.05)
    assert trainer.model.linear.weight.dtype == torch.float32


def test_float16_skips_steps_that_overflow_and_lowers_the_scale():
    trainer, record = make(amp_dtype=torch.float16)
    before = copy.deepcopy(trainer.model.linear.weight)
    trainer.train(0, 6)
    assert trainer.model.dtypes == {torch.float16}
    assert 1 < trainer.grad_scaler.get_scale() < 65536
    after = trainer.model.linear.weight
    assert after.isfinite().all() and not torch.equal(after, before)


class Spoiled(nn.Module):
    """A layer with running statistics; from iteration 2 on, its loss is spoiled in one of several ways."""

    def __init__(self, how: str):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.how = how

    def forward(self, batch):
        y = self.norm(self.linear(torch.stack([record["x"] for record in batch])))
        loss, zero = (y - 1).square().mean(), y.mean() * 0
        if get_event_storage().iter >= 2:
            loss = {
                "loss is nan": lambda: loss * float("nan"),
                "loss is inf": lambda: loss + float("inf"),  # whose gradient is finite
                "the gradient's norm is nan": lambda: loss + zero.square().sqrt(),
            }[self.how]()
        return {"loss": loss}


def fused_adamw(parameters):
    return torch.optim.AdamW(parameters, 0.1, fused=True)


def fused_sgd(parameters):
    return SGD(parameters, 0.1, momentum=0.9, fused=True)


def plain_sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def state_of(*stateful) -> list[torch.Tensor]:
    """Copies of all tensors but running statistics and their counters, which the forward pass changes."""
    flat = [tree_flatten(x.state_dict()) for x in stateful]
    skip = ("running", "tracked", "n_averaged")
    return [
        value.clone()
        for leaves in flat
        for path, value in leaves
        if torch.is_tensor(value) and not any(word in path for word in skip)
    ]


def tree_flatten(tree, path: str = "") -> list:
    if not isinstance(tree, dict | list | tuple):
        return [(path, tree)]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [leaf for key, value in items for leaf in tree_flatten(value, f"{path}/{key}")]


@pytest.mark.parametrize("how", ["loss is nan", "loss is inf", "the gradient's norm is nan"])
@pytest.mark.parametrize("log_period", [1, 9])
@pytest.mark.parametrize("make_optimizer", [fused_adamw, fused_sgd, plain_sgd])
def test_step_that_is_not_finite_stops_and_changes_nothing(tmp_path, how, log_period, make_optimizer):
    torch.manual_seed(0)
    model = Spoiled(how)
    ema, optimizer = EMA(model, 0.9), make_optimizer(model.parameters())
    trainer = Trainer(model, Data(), optimizer, ema=ema, log_period=log_period, output_dir=str(tmp_path))
    checkpointer = Checkpointer(model, str(tmp_path), trainer=trainer, ema=ema)
    before = []

    class Watch(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                before.extend(state_of(model, ema, optimizer))

        def after_step(self):
            if self.trainer.iter == 2:
                checkpointer.save("model")

    trainer.register_hooks([Watch()])
    with pytest.raises(UserError, match=rf"iteration 2: {how}; images: 2_0.jpg, 2_1.jpg") as error:
        trainer.train(0, 9)
    after = state_of(model, ema, optimizer)
    assert len(after) == len(before) and all(map(torch.equal, after, before))
    assert [path.name for path in tmp_path.iterdir()] == ["non_finite_0000002_rank0.pth"]
    dump = torch.load(tmp_path / "non_finite_0000002_rank0.pth")
    assert dump["iteration"] == 2 and [r["file_name"] for r in dump["batch"]] == [f"2_{j}.jpg" for j in range(4)]
    assert dump["losses"].keys() == {"loss"} and "non_finite_0000002" in str(error.value)


@pytest.mark.parametrize("log_period", [1, 99])
def test_float16_stops_when_no_scale_makes_the_gradient_finite(tmp_path, log_period):
    """Instead of skipping all further steps."""
    torch.manual_seed(0)
    model = Spoiled("the gradient's norm is nan")
    optimizer = fused_sgd(model.parameters())
    trainer = Trainer(
        model, Data(), optimizer, amp_dtype=torch.float16, log_period=log_period, output_dir=str(tmp_path)
    )
    with pytest.raises(UserError, match=r"iteration \d+: the gradient's norm is nan, also with a loss scale of 0.5"):
        trainer.train(0, 99)
    assert trainer.iter < 25 and all(weight.isfinite().all() for weight in model.parameters())


def test_step_that_is_not_finite_is_found_before_the_next_one_changes_anything(tmp_path):
    """Without a checkpoint in between, the step after it has begun already."""
    torch.manual_seed(0)
    model = Spoiled("loss is nan")
    optimizer = fused_sgd(model.parameters())
    trainer = Trainer(model, Data(), optimizer, log_period=9, output_dir=str(tmp_path))
    seen = []

    class Watch(HookBase):
        def before_step(self):
            seen.append((self.trainer.iter, state_of(model, optimizer)))

    trainer.register_hooks([Watch()])
    with pytest.raises(UserError, match="iteration 2: loss is nan; images: 2_0.jpg"):
        trainer.train(0, 9)
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    assert all(map(torch.equal, seen[2][1], state_of(model, optimizer)))


def test_weights_that_overflow_are_not_saved(tmp_path):
    trainer, _ = make(lr=3e38, momentum=0.0, output_dir=str(tmp_path))
    trainer.train(0, 1)
    with pytest.raises(UserError, match="the weights are not finite, and no checkpoint is written"):
        Checkpointer(trainer.model, str(tmp_path), trainer=trainer).save("model")
    assert not list(tmp_path.iterdir())


def test_losses_that_are_read_late_get_their_own_iteration():
    histories = []
    for log_period in (1, 3):
        torch.manual_seed(0)
        model = Toy()
        trainer = Trainer(model, Data(), plain_sgd(model.parameters()), log_period=log_period)
        trainer.train(0, 5)
        histories.append(trainer.storage.history("total_loss").values())
    assert histories[0] == histories[1] and [i for _, i in histories[1]] == [0, 1, 2, 3, 4]


def test_model_that_refuses_its_predictions_stops_in_the_same_way(tmp_path):
    class Refuses(Toy):
        def forward(self, batch):
            raise FloatingPointError("predictions diverged")

    trainer, _ = make(Refuses(), output_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"iteration 0: predictions diverged; images: 0_0.jpg"):
        trainer.train(0, 5)
    assert list(tmp_path.iterdir())


def test_ema_averages_after_every_step():
    model = Toy()
    ema = EMA(model, 0.5)
    trainer, _ = make(model, ema=ema)
    weights = []

    class Weights(HookBase):
        def after_step(self):
            weights.append(self.trainer.model.linear.weight.detach().clone())

    trainer.register_hooks([Weights()])
    trainer.train(0, 3)
    expected = 0.5 * (0.5 * weights[0] + 0.5 * weights[1]) + 0.5 * weights[2]
    assert ema.module.linear.weight.allclose(expected)


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("amp_dtype", [None, torch.float16])
def test_resumed_training_is_the_same_to_the_last_bit(tmp_path, stop, amp_dtype):
    """Dropout draws from the default generator, so the random state has to come back, too."""

    def build():
        torch.manual_seed(0)
        model = Toy(dropout=0.5)
        ema = EMA(model, 0.9)
        trainer, record = make(model, ema=ema, amp_dtype=amp_dtype)
        return trainer, record, Checkpointer(model, str(tmp_path), trainer=trainer, ema=ema)

    trainer, whole, _ = build()
    trainer.train(0, 6)
    expected = copy.deepcopy(trainer.ema.state_dict())

    trainer, _, checkpointer = build()

    class Save(HookBase):
        def after_step(self):
            if self.trainer.iter == stop - 1:
                checkpointer.save("model")

    trainer.register_hooks([Save()])
    trainer.train(0, stop)

    trainer, resumed, checkpointer = build()
    torch.manual_seed(99)  # another process would start in another state
    checkpointer.resume(newest_intact(str(tmp_path)))
    assert trainer.iter == stop - 1
    trainer.data_loader.start = stop
    trainer.train(stop, 6)
    assert resumed.losses == whole.losses[stop:]
    ema = trainer.ema.state_dict()
    assert all(torch.equal(ema[name], expected[name]) for name in expected)


def test_checkpoint_of_another_number_of_processes_is_accepted():
    trainer, record = make()
    trainer.load_state_dict(trainer.state_dict() | {"iteration": 0, "random_states": [{}, {}]})
    trainer.train(0, 1)
    assert record.losses
