import copy
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from safetensors.torch import save_file

from la_det import model_zoo
from la_det.checkpoint.recipe import (
    RECIPE,
    apply_recipe,
    check_number_of_classes,
    network_facts,
    read_recipe,
    training_recipe,
    write_weights,
)
from la_det.config import class_node, save_yaml_config
from la_det.conversion.repositories import MMDETECTION_TOOD
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.modeling.candidate_rules import TopPairs

ATSS = "ATSS/atss_r18_fpn_shapes_tiny"
WEIGHTS = {"a": torch.arange(6.0).view(2, 3).T}
FACT = "head.predictors.main.priors.box_offset"
BOX_OFFSET = f"model.{FACT}"


@pytest.fixture(params=[".pth", ".safetensors"])
def path(request, tmp_path) -> Path:
    return tmp_path / f"a{request.param}"


def recipe(**facts) -> dict:
    cfg = model_zoo.get_config(ATSS)
    return {
        "config": ATSS,
        "repository": "x/y",
        "overrides": {BOX_OFFSET: 1},
        "network": network_facts(cfg.model) | {FACT: 1} | facts,
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
    p6 = "backbone.top_block.in_feature"
    write_weights(path, WEIGHTS, recipe(**{"input_format": "BGR", p6: "res5"}))
    with pytest.raises(UserError) as error:
        apply_recipe(model_zoo.get_config(ATSS), str(path))

    assert str(error.value) == (
        f"{path}: these weights do not belong to the config, which has model.{p6} p5 instead of res5, "
        f"model.input_format RGB instead of BGR; use {ATSS}"
    )


def test_another_place_of_the_locations_is_an_error(path):
    """LLA's FCOS and DeFCN's have the same parameters, but LLA's locations are the cells' corners."""
    of, other = "LLA/lla_fcos_r50_fpn_30k_crowdhuman", "FCOS/fcos_r50_fpn_30k_crowdhuman"
    network = network_facts(model_zoo.get_config(of).model)
    write_weights(path, WEIGHTS, {"config": of, "repository": "x/y", "overrides": {}, "network": network})
    with pytest.raises(UserError, match=f"has model.head.predictors.main.priors.offset 0.5 instead of 0.0; use {of}"):
        apply_recipe(model_zoo.get_config(other), str(path))


def test_facts_of_files_of_earlier_versions(path):
    old = {"input_format": "RGB", "box_offset": 1, "location_offset": 0.5, "p6_from": "p5"}
    write_weights(path, WEIGHTS, recipe() | {"network": old})
    apply_recipe(model_zoo.get_config(ATSS), str(path))
    write_weights(path, WEIGHTS, recipe() | {"network": old | {"location_offset": 0.0}})
    with pytest.raises(UserError, match="main.priors.offset 0.5 instead of 0.0"):
        apply_recipe(model_zoo.get_config(ATSS), str(path))


def save_training(path: Path, name: str, *overrides: str) -> str:
    """What the checkpoints of a training of this config have beside their weights."""
    torch.save({"model": WEIGHTS, RECIPE: training_recipe(load_config(name, overrides))}, path)
    return str(path)


NAMES = [
    *("FCOS/fcos", "ATSS/atss", "POTO/poto_3dmf", "DATE/date_dw", "DATE/tal_dual", "DDQ/ddq_fcn", "TOOD/tood"),
    *("O2F/o2f", "AutoAssign/autoassign", "TOOD/tood_anchor"),
]


def test_trained_weights_know_their_own_config_and_no_other(tmp_path):
    """Equal after files of all forms: lists and tuples, classes and their names, the zoo's config and the run's."""
    names = [f"{name}_r18_fpn_shapes_tiny" for name in NAMES]
    facts = {name: network_facts(model_zoo.get_config(name).model) for name in names}
    for name in names:
        path = save_training(tmp_path / "a.pth", name)
        save_yaml_config(load_config(name), tmp_path / "config.yaml")
        for cfg in (model_zoo.get_config(name), load_config(name), load_config(tmp_path / "config.yaml")):
            before = copy.deepcopy(cfg)
            apply_recipe(cfg, path)
            assert cfg == before
        assert json.loads(json.dumps(facts[name])) == facts[name] == read_recipe(path)["network"]
        for other in names:  # other branches have other layers
            if any(facts[other].get(key, value) != value for key, value in facts[name].items()):
                with pytest.raises(UserError, match="; use the config of their training$"):
                    apply_recipe(model_zoo.get_config(other), path)
    assert len({json.dumps(x) for x in facts.values()}) >= 8


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pixel_mean", "[1, 2, 3]"),
        ("input_format", "BGR"),
        ("head.predictors.main.priors.strides", "[4, 8, 16, 32, 64]"),
        ("head.predictors.main.priors.sizes", "[4.0]"),
        ("head.predictors.main.codec.weights", "[1, 1, 1, 1]"),
        ("head.predictors.main.box_activation", "relu"),
        ("head.predictors.main.quality_on", "cls"),
        ("inference.score", "{_target_: la_det.structures.Score, gate: quality}"),
    ],
)
def test_what_maps_mean_has_to_stay(tmp_path, caplog, option, value):
    path = save_training(tmp_path / "a.pth", ATSS)
    cfg = load_config(ATSS, [f"model.{option}={value}"])
    with pytest.raises(
        UserError, match=rf"a.pth: these weights do not belong .* model.{option}\S* .+ instead of "
    ) as error:
        apply_recipe(cfg, path)
    assert len(str(error.value).splitlines()) == 1
    apply_recipe(cfg, path, "warn")
    assert f"has model.{option}" in caplog.text and "the training begins with them nevertheless" in caplog.text


@pytest.mark.parametrize(
    "override",
    [
        "model.inference.nms_threshold=null",
        "model.inference.max_detections=7",
        "model.inference.use_quality=False",
        "model.criteria.0.matcher.topk=3",
        "model.head.predictors.main.prior_prob=0.1",
        "model.head.predictors.main.codec.weights=[10, 10, 5, 5]",
        "model.num_classes=2",
        "model.backbone.bottom_up.freeze_at=2",
    ],
)
def test_what_may_differ(tmp_path, override):
    apply_recipe(load_config(ATSS, [override]), save_training(tmp_path / "a.pth", ATSS))


def test_detectors_of_other_packages_are_compared_by_their_layers(tmp_path):
    """Detectron2's RetinaNet has a head without our predictors."""
    other = "LLA/faster_rcnn_r50_fpn_30k_crowdhuman"
    apply_recipe(model_zoo.get_config(other), save_training(tmp_path / "a.pth", other))
    apply_recipe(model_zoo.get_config(other), save_training(tmp_path / "a.pth", ATSS))
    cfg = OmegaConf.create({"model": {"head": {"_target_": "x"}, "pixel_mean": [0.0]}})
    apply_recipe(cfg, save_training(tmp_path / "a.pth", ATSS))
    assert network_facts(cfg.model) == {"pixel_mean": [0.0]}


@pytest.mark.parametrize(
    "override",
    [
        "model.head.predictors.main.codec={_target_: la_det.structures.LTRBCodec}",
        "model.inference.score={_target_: la_det.structures.Score}",
    ],
)
def test_a_default_that_is_written_is_the_same(tmp_path, override):
    other = "POTO/poto_r18_fpn_shapes_tiny"
    apply_recipe(load_config(other, [override]), save_training(tmp_path / "a.pth", other))
    apply_recipe(model_zoo.get_config(other), save_training(tmp_path / "b.pth", other, override))


@pytest.mark.parametrize("key", ["{", "{x}", "{0.__class__}", "%s", ""])
def test_facts_with_odd_names_are_no_facts(tmp_path, key):
    torch.save({"model": {}, "recipe": recipe(**{key: 1})}, tmp_path / "a.pth")
    apply_recipe(model_zoo.get_config(ATSS), str(tmp_path / "a.pth"))


def test_facts_whose_names_are_no_text(tmp_path):
    torch.save({"model": {}, "recipe": recipe() | {"network": {3: 1}}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="a.pth: its recipe is damaged"):
        apply_recipe(model_zoo.get_config(ATSS), str(tmp_path / "a.pth"))


def test_objects_in_a_config_are_no_facts(tmp_path):
    """They would have to be unpickled."""
    cfg = model_zoo.get_config(ATSS)
    cfg.model.head.predictors.main.priors.new = {"shape": ShapeSpec(channels=3)}
    cfg.model.head.predictors.main.codec = L(lambda: None)()
    torch.save({"model": WEIGHTS, RECIPE: training_recipe(cfg)}, tmp_path / "a.pth")
    assert read_recipe(str(tmp_path / "a.pth"))["network"]["head.predictors.main.codec"] == "<lambda>"


def test_number_of_classes(tmp_path):
    torch.save({"model": WEIGHTS, "classes": {"names": ["a", "b", "c"], "ids": [1, 2, 3]}}, tmp_path / "a.pth")
    for name in (ATSS, "LLA/faster_rcnn_r50_fpn_30k_crowdhuman"):
        cfg = model_zoo.get_config(name)
        cfg.dataloader.test.dataset.names = "coco:images,two.json"
        class_node(cfg.model).num_classes = 3
        check_number_of_classes(cfg, str(tmp_path / "a.pth"))
        class_node(cfg.model).num_classes = 2
        with pytest.raises(UserError) as error:
            check_number_of_classes(cfg, str(tmp_path / "a.pth"))
        assert str(error.value) == (
            f"{tmp_path}/a.pth: weights of 3 classes, but the config has 2, for the data coco:images,two.json; use "
            "data with the classes of the weights, or begin a training with these weights by `la-det train --from`"
        )


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


def test_facts_that_a_config_does_not_have(path):
    """Of another version: there is nothing to compare."""
    write_weights(path, WEIGHTS, recipe(something_new=[1]))
    apply_recipe(model_zoo.get_config(ATSS), str(path))
