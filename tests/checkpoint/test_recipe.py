from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from detectron2.config import instantiate
from safetensors.torch import save_file

from la_det import model_zoo
from la_det.checkpoint.recipe import apply_recipe, network_facts, read_recipe, write_weights
from la_det.conversion.repositories import MMDETECTION_TOOD
from la_det.errors import UserError
from la_det.modeling.candidate_rules import TopPairs

ATSS = "ATSS/atss_r18_fpn_shapes_tiny"
WEIGHTS = {"a": torch.arange(6.0).view(2, 3).T}
BOX_OFFSET = "model.head.predictors.main.priors.box_offset"


@pytest.fixture(params=[".pth", ".safetensors"])
def path(request, tmp_path) -> Path:
    return tmp_path / f"a{request.param}"


def recipe(**facts) -> dict:
    cfg = model_zoo.get_config(ATSS)
    return {
        "config": ATSS,
        "repository": "x/y",
        "overrides": {BOX_OFFSET: 1},
        "network": network_facts(cfg.model) | {"box_offset": 1} | facts,
    }


def test_round_trip(path):
    write_weights(path, WEIGHTS, recipe())
    assert read_recipe(str(path)) == recipe()


def test_the_config_gets_what_the_weights_need(path):
    write_weights(path, WEIGHTS, recipe())
    cfg = model_zoo.get_config(ATSS)
    assert cfg.model.head.predictors.main.priors.box_offset == 0
    apply_recipe(cfg, str(path))
    assert cfg.model.head.predictors.main.priors.box_offset == 1


def test_another_rule_of_inference(path):
    name = "TOOD/tood_r50_fpn_1x_coco"
    overrides = dict(MMDETECTION_TOOD.overrides)
    network = network_facts(model_zoo.get_config(name).model)
    write_weights(path, WEIGHTS, {"config": name, "repository": "x/y", "overrides": overrides, "network": network})
    cfg = model_zoo.get_config(name)
    apply_recipe(cfg, str(path))
    rule = instantiate(cfg.model.inference)
    assert isinstance(rule.candidate_rule, TopPairs) and not rule.candidate_rule.cap and not rule.clip
    assert cfg.model.head.predictors.main.repair


def test_another_input_is_an_error(path):
    write_weights(path, WEIGHTS, recipe(input_format="BGR", p6_from="res5"))
    with pytest.raises(UserError, match=f"it is for {ATSS}; .* input_format RGB instead of BGR, p6_from p5 instead of"):
        apply_recipe(model_zoo.get_config(ATSS), str(path))


def test_another_place_of_the_locations_is_an_error(path):
    """LLA's FCOS and DeFCN's have the same parameters, but LLA's locations are the cells' corners."""
    of, other = "LLA/lla_fcos_r50_fpn_30k_crowdhuman", "FCOS/fcos_r50_fpn_30k_crowdhuman"
    network = network_facts(model_zoo.get_config(of).model)
    write_weights(path, WEIGHTS, {"config": of, "repository": "x/y", "overrides": {}, "network": network})
    with pytest.raises(UserError, match=f"it is for {of}; .* location_offset 0.5 instead of 0.0"):
        apply_recipe(model_zoo.get_config(other), str(path))


def test_weights_at_an_address(path, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write_weights(path, WEIGHTS, recipe())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert read_recipe(f"http://127.0.0.1:{server.server_port}/{path.name}") == recipe()
        server.shutdown()


def test_other_files_change_nothing(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "plain.pth")
    torch.save(WEIGHTS["a"], tmp_path / "tensor.pth")
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_text("no checkpoint")
    before = model_zoo.get_config(ATSS)
    for name in [path.name for path in tmp_path.iterdir()] + ["missing.pth", ""]:
        cfg = model_zoo.get_config(ATSS)
        apply_recipe(cfg, str(tmp_path / name))
        assert cfg == before


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.allow_pickle": True},
        {"model": {"_target_": "os.system", "command": "touch evil_was_here"}},
        {"model.head.predictors.main.priors.box_offset": {"_target_": "os.system"}},
        {"model.head.predictors.main.priors.box_offset": "1"},
        {"model.inference.candidates._target_": "os.system"},
        {"model.inference.clip": "no"},
        {"model.backbone.top_block.in_channels": 10**9},
        {"model.backbone.top_block.in_channels": True},
        {"model.backbone.top_block.in_feature": "${oc.env:HOME}"},
    ],
)
def test_a_recipe_sets_only_what_the_converter_writes(path, overrides):
    write_weights(path, WEIGHTS, recipe() | {"overrides": overrides})
    cfg = model_zoo.get_config(ATSS)
    with pytest.raises(UserError, match="its recipe would set .*, as `la-det convert` never writes"):
        apply_recipe(cfg, str(path))
    assert cfg == model_zoo.get_config(ATSS)


@pytest.mark.parametrize("content", [[1], "text", {"config": 3}, {"config": "c"}, {"config": "c", "overrides": []}])
def test_a_damaged_recipe_is_an_error(path, content):
    write_weights(path, WEIGHTS, content)
    with pytest.raises(UserError, match="its recipe is damaged"):
        read_recipe(str(path))


def test_facts_that_no_config_has(path):
    write_weights(path, WEIGHTS, recipe(something_new=[1]))
    with pytest.raises(UserError, match=r"something_new None instead of \[1\]"):
        apply_recipe(model_zoo.get_config(ATSS), str(path))
