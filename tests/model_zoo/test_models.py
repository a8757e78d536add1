import copy

import pytest
import torch

from la_det import Predictor, model_zoo
from la_det.checkpoint.recipe import network_facts, write_weights
from la_det.errors import UserError

NAME = "POTO/poto_r18_fpn_shapes_tiny"


def test_model_in_evaluation_mode_with_its_weights(tmp_path):
    trained = model_zoo.get(NAME)
    assert not trained.training
    torch.save({"model": trained.state_dict()}, tmp_path / "weights.pth")
    model = model_zoo.get(NAME, checkpoint=str(tmp_path / "weights.pth"))
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), model.parameters(), strict=True))


def converted(folder, config) -> str:
    """Weights that want an option which the named config does not have, as some official ones do."""
    overrides = {"model.head.predictors.main.priors.box_offset": 1}
    recipe = {
        "config": NAME,
        "repository": "x/y",
        "overrides": overrides,
        "network": network_facts(config.model) | {"head.predictors.main.priors.box_offset": 1},
    }
    write_weights(folder / "converted.safetensors", model_zoo.get(NAME).state_dict(), recipe)
    return str(folder / "converted.safetensors")


def test_converted_weights_get_what_they_need(tmp_path):
    config = model_zoo.get_config(NAME)
    weights = converted(tmp_path, config)
    assert model_zoo.get(NAME).head.predictors["main"].priors.box_offset == 0
    assert model_zoo.get(NAME, checkpoint=weights).head.predictors["main"].priors.box_offset == 1
    before = copy.deepcopy(config)
    assert Predictor(config, weights).model.head.predictors["main"].priors.box_offset == 1
    assert config == before


def test_unknown_name():
    with pytest.raises(KeyError, match=r"no config 'POTO/nothing'; la_det.model_zoo.list\(\) names all"):
        model_zoo.get("POTO/nothing")


def test_weights_of_another_model(tmp_path):
    torch.save({"model": model_zoo.get("POTO/poto_3dmf_r18_fpn_shapes_tiny").state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="this checkpoint is of another model"):
        model_zoo.get(NAME, checkpoint=str(tmp_path / "weights.pth"))
