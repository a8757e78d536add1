"""The command, as a user runs it: results that load, and errors of one line."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from safetensors.torch import save_file

from la_det import cli, model_zoo
from la_det.checkpoint import Checkpointer
from la_det.checkpoint.recipe import apply_recipe, network_facts, read_recipe
from tests.checkpoint.evil import Evil
from tests.conversion.official_state import MANIFESTS, official_state

POTO = "POTO/poto_r50_fpn_30k_crowdhuman"


def convert(*argv: str) -> None:
    cli.run("convert", argv)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Of POTO on CrowdHuman."""
    return official_state(MANIFESTS["poto_crowdhuman"])


@pytest.fixture
def error(capsys):
    """Runs the command, expects that it fails, and returns its one line."""

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as failure:
            convert(*argv)
        assert failure.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not Path("out.pth").exists()
        return line

    return run


@pytest.mark.parametrize("target", ["out.pth", "new_folder/out.safetensors"])
def test_converted_files_load_strictly_and_say_what_they_are(state, target, capsys):
    torch.save({"model": state}, "in.pth")
    convert("in.pth", target, "--config", POTO)
    output = capsys.readouterr().out
    assert "322 keys used, 0 without use here, none left over" in output
    assert POTO in output and "pixel_mean: [103.53, 116.28, 123.675]" in output
    recipe = read_recipe(target)
    assert recipe == {
        "config": POTO,
        "repository": "Megvii-BaseDetection/DeFCN",
        "overrides": {},
        "network": network_facts(model_zoo.get_config(POTO).model),
    }
    facts = {"input_format": "BGR", "pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0]}
    facts |= {"head.predictors.main.priors.offset": 0.5, "backbone.top_block.in_feature": "p5"}
    assert facts.items() <= recipe["network"].items()
    cfg = model_zoo.get_config(POTO)
    apply_recipe(cfg, target)
    model = instantiate(cfg.model)
    Checkpointer(model, strict=True).load(target)
    keys = list(state)
    assert [round(x) for x in model.head.scales.tolist()] == [keys.index(f"head.scales.{i}.scale") for i in range(5)]


def test_one_key_is_missing(state, error):
    del state["head.cls_score.bias"]
    torch.save(state, "in.pth")
    message = error("in.pth", "out.pth", "--config", POTO)
    assert message == f"error: in.pth: it does not fit {POTO}: 1 missing (head.predictors.main.logits.bias)"


def test_one_level_scale_is_missing(state, error):
    del state["head.scales.2.scale"]
    torch.save(state, "in.pth")
    assert error("in.pth", "out.pth", "--config", POTO).endswith("1 missing (head.scales[2])")


def test_one_key_is_extra(state, error):
    torch.save(state | {"head.extra.weight": torch.ones(3)}, "in.pth")
    assert error("in.pth", "out.pth", "--config", POTO).endswith(
        f"it does not fit {POTO}: 1 unused (head.extra.weight)"
    )


def test_one_shape_is_wrong(state, error):
    torch.save(state | {"head.cls_score.weight": torch.ones(80, 256, 3, 3)}, "in.pth")
    message = error("in.pth", "out.pth", "--config", POTO)
    assert message.endswith("1 wrong (head.cls_score.weight [80, 256, 3, 3] instead of [1, 256, 3, 3])")


def test_the_file_is_truncated(state, error):
    torch.save(state, "in.pth")
    content = Path("in.pth").read_bytes()
    Path("in.pth").write_bytes(content[: len(content) // 2])
    assert error("in.pth", "out.pth") == "error: in.pth: damaged, or no PyTorch checkpoint; get the file again"


def test_without_a_name_the_closest_config_is_told(error):
    state = official_state(MANIFESTS["lla_fcos_crowdhuman"])
    torch.save(state | {"head.extra.weight": torch.ones(3)}, "in.pth")
    assert error("in.pth", "out.pth").endswith(
        "fits no config, the closest is LLA/lla_r50_fpn_30k_crowdhuman: 1 unused (head.extra.weight)"
    )


@pytest.mark.parametrize("name", ["in.pth", "in.pkl"])
def test_pickled_code_runs_only_with_the_flag(state, error, name):
    content = {"model": state, "meta": Evil()}
    if name == "in.pkl":
        Path(name).write_bytes(pickle.dumps({"model": {}, "meta": Evil()}))
    else:
        torch.save(content, name)
    assert "if you trust its author, --allow-pickle reads it" in error(name, "out.pth", "--config", POTO)
    assert not Path("evil_was_here").exists()
    if name == "in.pth":
        convert(name, "out.pth", "--config", POTO, "--allow-pickle")
        assert Path("evil_was_here").exists() and Path("out.pth").exists()


def test_several_models_have_these_parameters(error):
    torch.save({"model": official_state(MANIFESTS["poto_3dmf_crowdhuman"])}, "in.pth")
    assert error("in.pth", "out.pth") == (
        "error: in.pth: 2 configs have these parameters; say with --config which it is: "
        "POTO/poto_3dmf_aux_r50_fpn_30k_crowdhuman, POTO/poto_3dmf_r50_fpn_30k_crowdhuman"
    )


@pytest.mark.parametrize("name", ["POTO/poto_r50_fpn_30k_crowdhumam", "POTO/poto_r18_fpn_shapes_tiny", "nonsense", ""])
def test_unknown_config(state, error, name):
    torch.save(state, "in.pth")
    message = error("in.pth", "out.pth", "--config", name)
    assert message.startswith(f"error: --config {name}: no config of an official model; did you mean ")


def test_foreign_files_and_foreign_configs(state, error):
    torch.save({"conv.weight": torch.ones(1)}, "in.pth")
    assert error("in.pth", "out.pth") == (
        "error: in.pth: its keys (conv.weight) are not of an official repository that is known here; "
        "la-det reproduce --list names these"
    )
    torch.save(state, "in.pth")
    message = error("in.pth", "out.pth", "--config", "DW/dw_r50_fpn_1x_coco")
    assert "does not fit DW/dw_r50_fpn_1x_coco: " in message and " and 320 more" in message and len(message) < 500


@pytest.mark.parametrize("name", ["defcn_anchor_coco", "onenet_retinanet_r50", "o2f_condinst_r50", "ddq_fcn_r50"])
def test_errors_name_a_few_keys_of_many(name, error):
    state = official_state(MANIFESTS[name])
    torch.save({key: torch.zeros(2, 2) for key in state} | {"x" * 1000: torch.ones(1)}, "in.pth")
    message = error("in.pth", "out.pth", "--config", "DW/dw_r50_fpn_1x_coco")
    assert " more" in message and len(message) < 700


OWN = "error: {0}: weights of la_det, which need no conversion; use la-det eval CONFIG {0}"


@pytest.mark.parametrize(
    "config",
    [
        "FCOS/fcos_r18_fpn_shapes_tiny",
        "DATE/date_f_r18_fpn_shapes_tiny",
        "DDQ/ddq_fcn_r18_fpn_shapes_tiny",
        "TOOD/tood_r18_fpn_shapes_tiny",
        "O2F/o2f_condinst_r18_fpn_shapes_tiny",
    ],
)
def test_weights_of_la_det_are_recognised(config, error):
    """In all forms in which they can be, also with a config that is said to be theirs."""
    own = instantiate(model_zoo.get_config(config).model).state_dict()
    classes = {"names": ["a"], "ids": [1]}
    forms = {
        "plain.pth": own,
        "model_final.pth": {"model": own, "trainer": {"iteration": 5}, "classes": classes, "iteration": 5},
        "parallel.pth": {f"module.{key}": value for key, value in own.items()},
    }
    for name, content in forms.items():
        torch.save(content, name)
        assert error(name, "out.pth") == error(name, "out.pth", "--config", POTO) == OWN.format(name)
    save_file({key: value.contiguous() for key, value in own.items()}, "own.safetensors")
    assert error("own.safetensors", "out.pth") == OWN.format("own.safetensors")


def test_other_detectors_that_la_det_trained_are_recognised(error):
    weights = {"roi_heads.box_head.fc1.bias": torch.ones(3)}
    torch.save({"model": weights, "classes": {"names": ["a"], "ids": [1]}}, "faster.pth")
    assert error("faster.pth", "out.pth") == OWN.format("faster.pth")


@pytest.mark.parametrize("name", ["once.pth", "once.safetensors"])
def test_converted_files_are_recognised(state, name, error):
    torch.save({"model": state}, "in.pth")
    convert("in.pth", name, "--config", POTO)
    assert error(name, "out.pth") == OWN.format(name)


def test_paths_that_do_not_help(state, error):
    assert error("none.pth", "out.pth") == "error: none.pth: No such file or directory"
    torch.save(state, "in.pth")
    Path("file").write_text("")
    assert error("in.pth", "file/out.pth", "--config", POTO).startswith("error: file/out.pth: ")
    assert "out.onnx: its name has to end with .safetensors or .pth" in error("in.pth", "out.onnx")


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as end:
        convert("--help")
    assert end.value.code == 0
    assert "--config POTO/poto_r50_fpn_3x_ms_coco" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("target", ["out.pth", "out.safetensors"])
def test_evaluation_takes_the_options_that_the_weights_need(tiny_coco, target, capsys):
    data = json.loads((tiny_coco / "val.json").read_text())
    data["categories"] = [{"id": i, "name": f"class {i}"} for i in range(80)]
    Path("val.json").write_text(json.dumps(data))
    torch.save({"model": official_state(MANIFESTS["atss_R_50_FPN_1x"])}, "in.pth")
    name = "ATSS/atss_r50_fpn_1x_coco"
    convert("in.pth", target, "--config", name)
    argv = ["--config-file", name, "--eval-only", "train.device=cpu"]
    argv += ["--dataset", f"coco:{tiny_coco}/images,val.json,{tiny_coco}/images,val.json"]
    argv += ["dataloader.test.num_workers=0", "dataloader.test.mapper.augmentations.0.short_edge_length=64"]
    cli.run("train", [*argv, f"train.init_checkpoint={target}"], "train_net.py")
    output = capsys.readouterr().out
    assert f"model.head.predictors.main.priors.box_offset=1, as {target} needs it" in output
    assert "| bbox" in output
