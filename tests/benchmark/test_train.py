import time
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import nn

from la_det import model_zoo
from la_det.benchmark.memory import peak_extra_mib
from la_det.benchmark.train import StepTimes, detectron2_model, giga_flops, step_times


def test_operations_for_maps_of_images_are_counted():
    """One more 3x3 convolution of 128 channels in CondInst's mask branch, at stride 8 of 64 pixels."""
    config = model_zoo.get_config("O2F/o2f_condinst_r18_fpn_shapes_tiny").model
    flops = []
    for num_convs in (4, 5):
        config.head.image_branches.mask_features.num_convs = num_convs
        flops.append(1e9 * giga_flops(instantiate(config).inference_only(), 64, 64)[1])
    # The norm after it has a few operations as well.
    assert flops[1] - flops[0] == pytest.approx(128 * 128 * 9 * 8 * 8, rel=0.01)


class Detector(torch.nn.Module):
    """A model of another project."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return {"loss": self.weight * batch}


def test_parts_add_up_to_the_step():
    def batches():
        while True:
            time.sleep(0.02)
            yield 2.0

    model = Detector()
    times = step_times(model, torch.optim.SGD(model.parameters(), 0.1), batches(), torch.device("cpu"), steps=3)
    assert model.weight.item() == pytest.approx(1 - 5 * 0.1 * 2, abs=1e-6)
    assert times["step"] > times["data"] > 19 and times["matching"] == times["losses"] == 0
    assert min(times["network"], times["backward"], times["optimizer"]) > 0


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_detectron2_models_train_under_autocast(name):
    model = instantiate(detectron2_model(name, model_zoo.get_config("FCOS/fcos_r18_fpn_shapes_tiny").model))
    boxes = Boxes(torch.tensor([[4.0, 4.0, 40.0, 50.0]]))
    truth = Instances((64, 64), gt_boxes=boxes, gt_classes=torch.tensor([1]))
    batches = repeat([{"image": torch.zeros(3, 64, 64), "instances": truth}])
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    times = step_times(model, optimizer, batches, torch.device("cpu"), 1, warmup=0, amp_dtype=torch.bfloat16)
    assert min(times["network"], times["backward"]) > 0


@pytest.fixture
def asked_devices(monkeypatch) -> list[str]:
    """The GPUs that stand-ins for functions of torch.cuda were called for, in order."""
    asked = []

    def stand_in(device=None):
        asked.append(str(device))
        return 0

    for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return asked


def test_the_given_gpu_is_measured(asked_devices):
    assert StepTimes(torch.device("cuda", 1)).time("data", lambda: 7) == 7
    assert peak_extra_mib(lambda: None, "cuda:1") == 0
    assert set(asked_devices) == {"cuda:1"}


def test_on_a_gpu_the_whole_step_is_timed_without_waiting_inside(asked_devices, monkeypatch):
    waits = []

    def batches():
        while True:
            waits.append(len(asked_devices))
            yield 2.0

    model = Detector()
    monkeypatch.setattr(model, "to", lambda device: model)
    step_times(model, torch.optim.SGD(model.parameters(), 0.1), batches(), torch.device("cuda", 1), steps=3)
    waits_of_steps = [b - a for a, b in zip(waits, waits[1:], strict=False)]
    assert waits_of_steps[:4] == [2] * 4, "at the start and the end"
    assert len(waits) == 10 and min(waits_of_steps[5:]) > 2


def test_deformable_convolutions_count_as_convolutions():
    """One has, beside the plain one, the convolution that predicts 27 numbers: per location of all five levels."""
    config = model_zoo.get_config("DW/dw_r18_fpn_shapes_tiny").model
    flops = []
    for last_dcn in (None, "zeros"):
        config.head.cls_tower.last_dcn = last_dcn
        flops.append(1e9 * giga_flops(instantiate(config), 128, 128)[1])
    locations = sum((128 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    assert flops[1] - flops[0] == pytest.approx(27 * config.backbone.out_channels * 9 * locations, rel=1e-6)


class Attend(nn.Module):
    """Every pixel to all others."""

    def forward(self, images):
        x = images.flatten(2).transpose(1, 2)
        return {"p3": F.scaled_dot_product_attention(x, x, x)}


class AsTuple(nn.Module):
    def forward(self, features):
        return tuple(features)


def test_fused_attention_is_counted():
    model = nn.Module()
    model.backbone, model.head, model.in_features = Attend(), AsTuple(), ("p3",)
    assert 1e9 * giga_flops(model, 4, 5)[0] == pytest.approx(2 * 20 * 20 * 3)
