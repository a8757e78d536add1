"""DATE's models as a whole: losses of both branches, and what is left of them for inference."""

from collections import Counter

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from la_det import model_zoo
from la_det.checkpoint import Checkpointer

NAMES = [f"DATE/date_{variant}_r18_fpn_shapes_tiny" for variant in ("f", "r", "f_3dmf", "atss", "dw")]
SECOND_LOSSES = {
    "f": {"loss_fcos_cls", "loss_fcos_iou", "loss_fcos_ctr"},
    "r": {"loss_retina_cls", "loss_retina_box"},
    "f_3dmf": {"loss_fcos_cls", "loss_fcos_iou", "loss_fcos_ctr"},
    "atss": {"loss_cls", "loss_box_reg", "loss_centerness"},
    "dw": {"loss_cls_pos", "loss_loc", "loss_cls_neg"},
}


def example(objects: int, size=(64, 96)) -> dict:
    """An image with `objects` objects."""
    generator = torch.Generator().manual_seed(objects)
    instances = Instances(size)
    corners = torch.tensor([[4.0 + 20 * i, 6.0, 40.0 + 20 * i, 50.0] for i in range(objects)]).reshape(-1, 4)
    instances.gt_boxes, instances.gt_classes = Boxes(corners), torch.arange(objects)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": instances}


def make_model(name: str):
    config = model_zoo.get_config(name).model
    config.inference.score_threshold = 0.0  # random weights
    config.head.cls_tower.bias = config.head.box_tower.bias = False  # as DATE's are; POTO's have one
    torch.manual_seed(0)
    return instantiate(config)


def detect(model, size=(64, 96)) -> Instances:
    with torch.no_grad():
        return model.eval()([example(0, size)])[0]["instances"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("objects", [(3, 0), (0, 0)])
def test_every_parameter_is_trained_with_and_without_objects(name, objects):
    model = make_model(name).train()
    losses = model([example(n) for n in objects])
    variant = name.removeprefix("DATE/date_").removesuffix("_r18_fpn_shapes_tiny")
    assert set(losses) == {"loss_o2o_cls", "loss_o2o_l1", "loss_o2o_giou"} | SECOND_LOSSES[variant]
    assert all(loss.isfinite() for loss in losses.values())
    if not any(objects):
        assert losses["loss_o2o_l1"] == losses["loss_o2o_giou"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_inference_only_weights(name, tmp_path):
    """They give the same detections, alone or loaded into the whole model, and have no trace of the second branch."""
    model = make_model(name)
    expected = detect(model)
    assert len(expected) > 0
    before = sum(p.numel() for p in model.parameters())
    second = sum(p.numel() for p in model.head.predictors["one_to_many"].parameters())
    model.inference_only()
    assert sum(p.numel() for p in model.parameters()) == before - second
    assert not any("one_to_many" in key or "criteria" in key for key in model.state_dict())
    assert not model.training_only_keys()
    torch.save({"model": model.state_dict()}, tmp_path / "inference_only.pth")

    stripped = instantiate(model_zoo.get_config(name).model).inference_only()
    stripped.load_state_dict(torch.load(tmp_path / "inference_only.pth")["model"])
    whole = instantiate(model_zoo.get_config(name).model).eval()
    assert whole.training_only_keys() == whole.state_dict().keys() - model.state_dict().keys()
    Checkpointer(whole, strict=True).load(str(tmp_path / "inference_only.pth"))
    for other in (stripped, whole):
        other.inference.score_threshold = 0.0
        found = detect(other)
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)


def count_operators(model) -> Counter:
    detect(model)  # whatever happens once only
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        detect(model)
    return Counter({event.key: event.count for event in profile.key_averages()})


@pytest.mark.parametrize("name", ["DATE/date_f_r18_fpn_shapes_tiny", "DATE/date_r_r18_fpn_shapes_tiny"])
def test_inference_runs_the_operators_of_poto(name):
    """With POTO's inference rule (threshold, top-k, clipping): the second branch costs nothing.

    Without the biases of POTO's towers, whose addition the profiler counts, too.
    """
    poto, date = make_model("POTO/poto_r18_fpn_shapes_tiny"), make_model(name)
    date.inference = poto.inference
    assert count_operators(date) == count_operators(poto)
