import logging

import pytest
import torch
from omegaconf import OmegaConf

from la_det import model_zoo
from la_det.checkpoint.recipe import network_facts, write_weights
from la_det.config import save_yaml_config
from la_det.engine.fitting import auto_scale_lr
from la_det.engine.setup import load_config, setup
from la_det.errors import UserError

CONFIG = """
from detectron2.config import LazyCall as L

train = dict(max_iter=100, output_dir="a", amp=dict(enabled=False))
model = L(dict)(num_classes="${..train.max_iter}")
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG.replace("L(dict)", "L('builtins.dict')"))
    return str(path)


def test_overrides(config):
    cfg = load_config(config, ["train.max_iter=7", "train.amp.enabled=true", "+train.extra=[1,2]"])
    assert cfg.train.amp.enabled is True and cfg.model.num_classes == 7 and list(cfg.train.extra) == [1, 2]


@pytest.mark.parametrize(
    "value",
    ["~/m.pth", "epoch=1.pth", "größe.pth", "m (1).pth", "a,b.pth", "[x].pth", "a{b}.pth", "7", "m.pth", ""],
)
def test_text_is_taken_as_it_is(config, value):
    assert load_config(config, [f"train.output_dir={value}", "train.max_iter=7"]).train.output_dir == value


def test_values_of_a_file_are_checked_where_it_is_loaded(config):
    """The text "no" would count as true, and let a checkpoint run code."""
    cfg = load_config(config)
    cfg.train.allow_pickle = "no"
    with pytest.raises(UserError, match="^train.allow_pickle=no: it has to be True or False$"):
        load_config(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=3", "did you mean train.max_iter"),
        ("trane.max_iter=3", "check the config file"),
        ("train.amp.enable=True", "did you mean train.amp.enabled"),
        ("train.max_iter", "has the form key=value"),
        ("train.max_iter=[1", r"cannot apply the override train.max_iter=\[1"),
        ("=5", "=5: an override has the form key=value"),
        ("+=5", "an override has the form key=value"),
    ],
)
def test_bad_overrides(config, override, message):
    with pytest.raises(UserError, match=message):
        load_config(config, [override])


@pytest.mark.parametrize("value", ["no", "off", "yes", "on", "0", "1", "null", "''", "[True]", "{a: True}"])
def test_switches_are_true_or_false(config, value):
    """Hydra reads no and off as text, which counts as true."""
    for plus in ("", "+"):
        with pytest.raises(UserError, match="it has to be True or False"):
            load_config(config, [f"{plus}train.amp.enabled={value}"])
    assert load_config(config, ["train.amp.enabled=TRUE"]).train.amp.enabled is True


@pytest.mark.parametrize("value", ["True", "5", "text", "0.5"])
@pytest.mark.parametrize("node", ["train", "train.amp", "dataloader.train", "model.criteria", "train.hooks"])
def test_a_value_takes_no_place_of_a_section_or_list(node, value):
    for plus in ("", "+"):
        with pytest.raises(UserError, match=rf"{node}={value}: {node} is a (section; set one of its|list, so give)"):
            load_config("POTO/poto_r18_fpn_shapes_tiny", [f"{plus}{node}={value}"])


def test_what_can_take_the_place_of_a_section_or_list():
    overrides = ["train.best=null", "train.hooks=null", "optimizer.betas=[0.8,0.9]", "train.ema={decay: 0.5}"]
    cfg = load_config("PAA/paa_dcnv2_r101_fpn_2x_ms_coco", [*overrides[:2], "model.inference.voting=null"])
    assert cfg.train.best is None and cfg.train.hooks is None and cfg.model.inference.voting is None
    cfg = load_config("POTO/poto_r18_fpn_shapes_tiny", overrides)
    assert list(cfg.optimizer.betas) == [0.8, 0.9] and cfg.train.ema.decay == 0.5
    sides, names = "dataloader.train.mapper.augmentations.0.short_edge_length", "dataloader.test.dataset.names"
    cfg = load_config("FCOS/fcos_r50_fpn_3x_ms_coco", [f"{sides}=512", f"{names}=[a,'b,c']"])
    assert list(OmegaConf.select(cfg, names)) == ["a", "b,c"]
    cfg = load_config(cfg, [f"{names}=c"])
    assert OmegaConf.select(cfg, sides) == 512 and OmegaConf.select(cfg, names) == "c"


def scaled(batch_size, enabled=True):
    cfg = OmegaConf.create(
        {
            "train": {"auto_scale_lr": {"enabled": enabled, "reference_batch_size": 16}, "max_iter": 90000},
            "dataloader": {"train": {"total_batch_size": batch_size}},
            "optimizer": {"lr": 0.01, "params": {"lr": "${..lr}"}},
        }
    )
    auto_scale_lr(cfg)
    return cfg


def test_auto_scale_lr_logs_old_and_new(caplog):
    caplog.set_level(logging.INFO)
    cfg = scaled(4)
    assert cfg.optimizer.lr == cfg.optimizer.params.lr == 0.0025
    assert cfg.train.max_iter == 360000
    assert "learning rate 0.01 -> 0.0025, iterations 90000 -> 360000" in caplog.text
    auto_scale_lr(cfg)  # a saved config is not scaled again
    assert cfg.train.max_iter == 360000


@pytest.mark.parametrize("cfg", [scaled(16), scaled(4, enabled=False)], ids=["reference", "off"])
def test_auto_scale_lr_does_nothing(cfg):
    assert (cfg.optimizer.lr, cfg.train.max_iter) == (0.01, 90000)


def test_converted_weights_change_the_config(tmp_path):
    """Whether they are trained on or evaluated: the saved config is then enough for the run's own checkpoints."""
    name, key = "ATSS/atss_r18_fpn_shapes_tiny", "model.head.predictors.main.priors.box_offset"
    cfg = model_zoo.get_config(name)
    network = network_facts(cfg.model) | {"head.predictors.main.priors.box_offset": 1}
    weights = tmp_path / "weights.safetensors"
    write_weights(
        weights, {"a": torch.ones(1)}, {"config": name, "repository": "x/y", "overrides": {key: 1}, "network": network}
    )
    cfg.train.update(output_dir=str(tmp_path / "output"), init_checkpoint=str(weights))
    setup(cfg)
    assert OmegaConf.select(cfg, key) == 1
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["cut.yaml", "cut.py"])
def test_config_without_a_model(tmp_path, name):
    (tmp_path / name).write_text("train: {seed: 0}\n" if name.endswith("yaml") else "train = dict(seed=0)\n")
    with pytest.raises(UserError, match=f"{name}: no config of a detector: it has no model"):
        load_config(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FCOS/fcos_r18_fpn_shape_tiny", "FCOS/fcos_r18_fpn_shapes_tiny"),
        ("fcos_r18_fpn_shapes_tiny", "FCOS/fcos_r18_fpn_shapes_tiny"),
        ("POTO/fcos_r18_fpn_shapes_tiny", "FCOS/fcos_r18_fpn_shapes_tiny"),
        ("atss/atss_r18_fpn_shapes_tiny", "ATSS/atss_r18_fpn_shapes_tiny"),
        ("nothing", ""),
        ("folder/nothing.py", ""),
    ],
)
def test_mistyped_name_of_a_config(name, meant):
    hint = f"did you mean {meant}? " if meant else ""
    with pytest.raises(UserError) as error:
        load_config(name)
    assert str(error.value) == (
        f"{name}: no such config file, and no name of the model zoo; {hint}`la-det zoo list` shows all names"
    )


ZOO = """from la_det import model_zoo

cfg = model_zoo.get_config("FCOS/fcos_r18_fpn_shapes_tiny")
model, train = cfg.model, cfg.train
"""


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("x = (1\n", "a.py:1: ", "was never closed"),
        ("x = 1\ny = = 3\n", "a.py:2: ", "invalid syntax"),
        (ZOO.replace("shapes", "shape"), "a.py:3: KeyError: ", "did you mean 'FCOS/fcos_r18_fpn_shapes_tiny'"),
        (ZOO + "\nmodel.x.y = unknown\n", "a.py:6: NameError: ", "name 'unknown' is not defined"),
        (ZOO + "import no_such_module\n", "a.py:5: ModuleNotFoundError: ", "no_such_module"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "a.py:2: ZeroDivisionError: ", "division by zero"),
        ("import os\n\nos.environ['NOT_THERE_AT_ALL']\n", "a.py:3: KeyError: ", "NOT_THERE_AT_ALL"),
        ("assert False\n", "a.py:1: AssertionError", "AssertionError$"),
        ("from la_det.errors import UserError\nraise UserError('no')\n", "a.py:2: no", "no$"),
        ("from .d import f\n\nf()\n", "d.py:2: ValueError: ", "no depth"),
        ("from .b import x\n", "b.py:2: ", "invalid syntax"),
        ("from .c import x\n", "c.py:2: ZeroDivisionError: ", "division by zero"),
        ("raise ValueError('of\\nseveral\\nlines')\n", "a.py:1: ValueError: ", "of several lines$"),
        ("x = '\0'\n", "a.py: ", "null bytes"),
    ],
)
def test_errors_in_a_python_config_are_one_line(tmp_path, text, place, message):
    (tmp_path / "a.py").write_text(text)
    (tmp_path / "b.py").write_text("x = 1\ny = = 3\n")
    (tmp_path / "c.py").write_text("x = 1\ny = 1 / 0\n")
    (tmp_path / "d.py").write_text("def f():\n    raise ValueError('no depth')\n")
    with pytest.raises(UserError, match=message) as error:
        load_config(str(tmp_path / "a.py"))
    assert str(error.value).startswith(f"{tmp_path}/{place}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.criteria.0.matcher.center_radus=3", "model.criteria.0.matcher: FCOS has no argument center_radus; "),
        ("model.head.predictors.main.codek=1", "model.head.predictors.main: .*Predictor has no argument codek; did "),
        ("model.nothing_like_it=1", "model: AssignmentDetector has no argument nothing_like_it; it has "),
        ("optimizer.lrr=1", "optimizer: AdamW has no argument lrr; did you mean lr"),
        ("dataloader.train.num_worker=1", "dataloader.train: .* has no argument num_worker; did you mean num_workers"),
    ],
)
def test_arguments_that_nothing_takes(tmp_path, override, message):
    """In a config of every kind, before anything is built."""
    name = "FCOS/fcos_r18_fpn_shapes_tiny"
    key, _, value = override.partition("=")
    cfg = load_config(name)
    OmegaConf.update(cfg, key, int(value), force_add=True)
    save_yaml_config(cfg, tmp_path / "a.yaml")
    for config, overrides in ((name, [f"+{override}"]), (cfg, []), (tmp_path / "a.yaml", [])):
        with pytest.raises(UserError, match=f"^{message}"):
            load_config(config, overrides)


def test_arguments_that_are_passed_on():
    load_config("O2F/o2f_swin_t_fpn_1x_coco", ["+model.backbone.bottom_up.of_timm=1"])
    name = "DATE/tal_dual_detached_r18_fpn_shapes_tiny"  # its predictor passes options on to its base
    with pytest.raises(UserError, match="SeparatePredictor has no argument box_actvation; did you mean box_activation"):
        load_config(name, ["+model.head.predictors.one_to_one.box_actvation=exp"])


def test_a_config_of_an_earlier_version(tmp_path):
    cfg = load_config("FCOS/fcos_r18_fpn_shapes_tiny")
    OmegaConf.update(cfg, "model.head.predictors.main.init", "normal", force_add=True)
    save_yaml_config(cfg, tmp_path / "old.yaml")
    with pytest.raises(
        UserError, match="no argument init; .* If an earlier version wrote .*old.yaml, delete this option"
    ):
        load_config(tmp_path / "old.yaml")


def test_own_classes_that_pass_options_on(tmp_path):
    """A class derived from one of la_det has its own options and those of its bases, and no others."""
    (tmp_path / "own.py").write_text(OWN)
    cfg = load_config(tmp_path / "own.py", ["model.gain=3", "model.box_bias=1"])
    assert (cfg.model.gain, cfg.model.box_bias) == (3, 1)
    with pytest.raises(UserError, match="model: Widest has no argument gian; did you mean gain"):
        load_config(tmp_path / "own.py", ["+model.gian=3"])


OWN = """
from detectron2.config import LazyCall as L

from la_det import model_zoo
from la_det.modeling.heads import BranchPredictor


class Wide(BranchPredictor):
    def __init__(self, *, gain=1.0, **options):
        super().__init__(**options)


class Widest(Wide):
    pass


cfg = model_zoo.get_config("FCOS/fcos_r18_fpn_shapes_tiny")
train, dataloader, optimizer, lr_multiplier = cfg.train, cfg.dataloader, cfg.optimizer, cfg.lr_multiplier
model = L(Widest)(gain=2.0, box_bias=0.5)
"""
