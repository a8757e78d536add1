from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from torchvision.models import get_model_weights

from la_det.checkpoint import Checkpointer
from la_det.errors import UserError


@pytest.fixture
def hub(tmp_path):
    """torch.hub's folder of downloaded weights."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def torchvision_model(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(tensor)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def detectron2_resnet(depth):
    stages = ResNet.make_default_stages(depth, norm="BN", **({"stride_in_1x1": False} if depth >= 50 else {}))
    return ResNet(BasicStem(norm="BN"), stages, out_features=["res3", "res4", "res5"])


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_features_are_those_of_torchvision(depth, hub):
    source = torchvision_model(f"resnet{depth}")
    cached = Path(get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"].url).name
    torch.save(source.state_dict(), hub / cached)
    detector = torch.nn.ModuleDict({"backbone": FPN(detectron2_resnet(depth), ["res5"], 8)})
    Checkpointer(detector).load(f"torchvision://resnet{depth}")

    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = source.maxpool(source.relu(source.bn1(source.conv1(image))))
        expected = source.layer4(source.layer3(source.layer2(source.layer1(x))))
        features = detector["backbone"].bottom_up.eval()(image)["res5"]
    torch.testing.assert_close(features, expected)


def test_without_network_the_error_says_what_to_do(hub, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"torchvision://resnet18: cannot download https://.*put that file into"):
        Checkpointer(detectron2_resnet(18)).load("torchvision://resnet18")


def test_unknown_name():
    with pytest.raises(
        UserError, match="torchvision://vgg16: unknown initial weights; there are torchvision://resnet18"
    ):
        Checkpointer(detectron2_resnet(18)).load("torchvision://vgg16")
