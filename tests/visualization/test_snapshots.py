from dataclasses import replace

import torch
from detectron2.config import instantiate
from omegaconf import ListConfig

from la_det import model_zoo
from la_det.checkpoint.recipe import network_facts, write_weights
from la_det.data.builtin import register_shapes
from la_det.data.shapes import SHAPES
from la_det.visualization.snapshots import Moment, Scheme

TINY = replace(SHAPES["shapes_tiny"], name="tiny_of_snapshots_test", num_train=1, num_val=2)
ATSS = "ATSS/atss_r18_fpn_shapes_tiny"


def test_what_converted_weights_need_does_not_reach_other_moments(tmp_path):
    register_shapes(TINY, tmp_path)
    config = model_zoo.get_config(ATSS)
    config.train.device, config.dataloader.test.dataset.names = "cpu", f"{TINY.name}_val"
    records = list(instantiate(config.dataloader.test.dataset))
    facts = network_facts(config.model) | {"head.predictors.main.priors.box_offset": 1}
    overrides = {"model.head.predictors.main.priors.box_offset": 1}
    weights = tmp_path / "converted.pth"
    recipe = {"config": ATSS, "repository": "x/y", "overrides": overrides, "network": facts}
    write_weights(weights, instantiate(config.model).state_dict(), recipe)

    scheme = Scheme("atss", config, ListConfig([]))
    moments = (Moment(), Moment(str(weights)), Moment())
    (before,), (converted,), (after,) = (scheme.panels(records, moment) for moment in moments)
    assert [len(panel.found) for panel in (before, converted, after)] == [2, 2, 2]
    assert not torch.equal(before.priors.boxes, converted.priors.boxes)
    assert torch.equal(before.priors.boxes, after.priors.boxes)
