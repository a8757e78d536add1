import copy

import pytest
from omegaconf import OmegaConf

from la_det import model_zoo
from la_det.engine.checks import check_config
from la_det.errors import UserError


@pytest.fixture(scope="module")
def config():
    return model_zoo.get_config("POTO/poto_r18_fpn_shapes_tiny")


def test_configs_are_right(config):
    check_config(config, 1)
    check_config(model_zoo.get_config("LLA/faster_rcnn_r50_fpn_30k_crowdhuman"), 8)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataloader.train.total_batch_size", 0),
        ("dataloader.train.num_workers", -1),
        ("dataloader.test.batch_size", 0),
        ("train.max_iter", 0),
        ("train.max_iter", -5),
        ("train.max_iter", 1.5),
        ("train.max_iter", True),
        ("train.log_period", 0),
        ("train.eval_period", -1),
        ("train.diagnostics_period", -1),
        ("train.checkpointer.period", -3),
        ("train.checkpointer.max_to_keep", 0),
        ("train.grad_accum_steps", 0),
        ("train.seed", -1),
        ("train.amp.dtype", "float8"),
        ("train.ema.decay", 1.0),
        ("train.ema.decay", "much"),
        ("train.clip_grad.max_norm", -0.1),
        ("train.best.mode", "largest"),
        ("train.preemption_signal", "SIGNONE"),
        ("train.preemption_signal", "SIGKILL"),
        ("train.preemption_signal", "SIGSTOP"),
        ("train.output_dir", None),
        ("train.init_checkpoint", None),
        ("train.allow_pickle", "no"),
        ("train.ema.enabled", "no"),
        ("train.deterministic", 0),
        ("train.amp", None),
        ("train.checkpointer", 5),
        ("dataloader.train", None),
        ("lr_multiplier", None),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", -1),
        ("optimizer.weight_decay", None),
    ],
)
def test_impossible_values(config, key, value):
    changed = copy.deepcopy(config)
    OmegaConf.update(changed, key, value)
    with pytest.raises(UserError, match=f"{key}={value}: it has to be "):
        check_config(changed, 1)


def test_batch_and_processes_that_do_not_fit(config):
    with pytest.raises(UserError, match="total_batch_size=16 is no multiple of 3 processes"):
        check_config(config, 3)
    changed = copy.deepcopy(config)
    changed.train.grad_accum_steps = 3
    with pytest.raises(UserError, match="grad_accum_steps=3 does not divide the 8 images"):
        check_config(changed, 2)


def test_patience_needs_a_metric(config):
    changed = copy.deepcopy(config)
    changed.train.best.patience = 3
    with pytest.raises(UserError, match="train.best.patience needs train.best.metric"):
        check_config(changed, 1)


def test_ignored_boxes_that_the_mapper_removes(config):
    changed = copy.deepcopy(config)
    changed.model.criteria[0].ignored = "counted"
    with pytest.raises(UserError, match="criteria.0.ignored=counted: it needs dataloader.train.mapper.ignored=mark"):
        check_config(changed, 1)
    changed.dataloader.train.mapper.ignored = "mark"
    check_config(changed, 1)
