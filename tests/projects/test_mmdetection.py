"""The recipes of MMDetection's FCOS and ATSS."""

import pytest
import torch
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.criteria import GIoULoss, IoULoss

FCOS, NORMBBOX = "FCOS/fcos_mmdet_r50_fpn_1x_coco", "FCOS/fcos_mmdet_center_normbbox_r50_fpn_1x_coco"
ATSS = "ATSS/atss_mmdet_r50_fpn_1x_coco"


@pytest.mark.parametrize("name", [FCOS, NORMBBOX, ATSS])
def test_schedule(name):
    config = model_zoo.get_config(name)
    rate, start = instantiate(config.lr_multiplier), 1 / 3 if name == FCOS else 0.001
    expected = {0: start, 500: 1, 58639: 1, 58640: 0.1, 80630: 0.01}
    assert {i: rate(i / 87960) for i in expected} == pytest.approx(expected)
    assert rate(250 / 87960) == pytest.approx(start if name == FCOS else 0.5, abs=0.01)
    assert config.train.max_iter == 87960
    assert config.train.clip_grad.max_norm == (35 if name == FCOS else 0)
    mapper = config.dataloader.train.mapper
    assert mapper.augmentations[0].short_edge_length == 800
    assert mapper.image_format == config.model.input_format == ("RGB" if name == ATSS else "BGR")
    assert config.train.init_checkpoint.split("/")[-2] == ("torchvision" if name == ATSS else "MSRA")


@pytest.mark.parametrize("name", [FCOS, NORMBBOX, ATSS])
def test_learning_rate_and_decay_of_biases(name):
    """FCOS's biases of convolutions learn twice as fast without decay; norms follow no rule."""
    config = model_zoo.get_config(name)
    with torch.device("meta"):
        model = instantiate(config.model)
    config.optimizer.params.model = model
    rules = {p: (g["lr"], g["weight_decay"]) for g in instantiate(config.optimizer).param_groups for p in g["params"]}
    predictor = model.head.predictors["main"]
    assert rules[predictor.logits.bias] == ((0.01, 1e-4) if name == ATSS else (0.02, 0.0))
    norm = model.head.cls_tower[1]
    assert rules[norm.bias] == rules[norm.weight] == rules[predictor.logits.weight] == (0.01, 1e-4)


def test_losses():
    kinds = {FCOS: (IoULoss, 0, 1e-6), NORMBBOX: (GIoULoss, 1.5, 1e-6), ATSS: (GIoULoss, None, 1.0)}
    for name, (kind, radius, floor) in kinds.items():
        (criterion,) = instantiate(model_zoo.get_config(name).model.criteria)
        loss = criterion.losses["loss_box_reg"]
        assert type(loss) is kind and loss.floor == floor
        assert getattr(criterion.matcher, "center_radius", None) == radius


def test_p7_without_relu():
    block = LastLevelP6P7WithoutReLU(4, 4, in_feature="p5")
    p6, p7 = block(torch.randn(1, 4, 16, 16))
    assert (p6 < 0).any() and torch.equal(p7, block.p7(p6))
