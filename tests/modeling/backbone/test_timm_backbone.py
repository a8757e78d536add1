"""timm's models as backbones."""

import sys

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from la_det import model_zoo
from la_det.checkpoint import Checkpointer
from la_det.errors import UserError
from la_det.modeling.backbone import TimmBackbone

timm = pytest.importorskip("timm")

SWIN = dict(model_name="swin_tiny_patch4_window7_224", strict_img_size=False)
X = torch.rand(2, 3, 64, 96)


@pytest.mark.parametrize(
    "options",
    [SWIN, SWIN | dict(out_norm=True), dict(model_name="resnet18"), dict(model_name="efficientnet_b0")],
    ids=lambda options: options["model_name"],
)
def test_maps_have_the_announced_shapes(options):
    backbone = TimmBackbone(**options).eval()
    outputs, shapes = backbone(X), backbone.output_shape()
    assert list(outputs) == list(shapes) == ["stride8", "stride16", "stride32"]
    for (name, y), stride in zip(outputs.items(), (8, 16, 32), strict=True):
        assert shapes[name].stride == stride
        assert y.shape == (2, shapes[name].channels, 64 // stride, 96 // stride)


def test_channels_last_features_keep_their_positions():
    """Swin's features are NHWC: the same as those of its getter, which transposes them itself."""
    torch.manual_seed(0)
    backbone = TimmBackbone(**SWIN).eval()
    assert backbone.channels_last
    getter = timm.create_model(SWIN["model_name"], features_only=True, feature_cls="getter", strict_img_size=False)
    weights = {key.replace("layers_", "model.layers."): value for key, value in backbone.net.state_dict().items()}
    weights = {key if key.startswith("model.") else f"model.{key}": value for key, value in weights.items()}
    assert not getter.load_state_dict(weights, strict=False).unexpected_keys
    for y, expected in zip(backbone(X).values(), getter.eval()(X)[1:], strict=True):
        torch.testing.assert_close(y, expected)


def test_outputs_are_normalised_over_channels():
    backbone = TimmBackbone(**SWIN, out_norm=True).eval()
    for y in backbone(X).values():
        torch.testing.assert_close(y.mean(1), torch.zeros_like(y[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(y.var(1, unbiased=False), torch.ones_like(y[:, 0]), atol=1e-2, rtol=0)


def test_unknown_strides_are_refused():
    with pytest.raises(ValueError, match=r"strides \[2, 4, 8, 16, 32\], not of all \[8, 64\]"):
        TimmBackbone(model_name="resnet18", strides=(8, 64))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        TimmBackbone(model_name="resnet18")


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = instantiate(model_zoo.get_config("O2F/o2f_swin_t_fpn_1x_coco").model.backbone)


def test_initial_weights_reach_the_backbone(monkeypatch, tmp_path):
    create_model = timm.create_model
    published = create_model(SWIN["model_name"], features_only=True)

    def no_download(name, pretrained=False, **options):
        return published if pretrained else create_model(name, **options)

    monkeypatch.setattr(timm, "create_model", no_download)
    detector = Detector()
    Checkpointer(detector, str(tmp_path)).load("timm://swin_tiny_patch4_window7_224")
    loaded = detector.backbone.bottom_up.net.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in published.state_dict().items())


def test_weights_that_cannot_be_had_are_named(tmp_path):
    with pytest.raises(UserError, match="timm://no_such_model: cannot get timm's weights"):
        Checkpointer(nn.Linear(1, 1), str(tmp_path)).load("timm://no_such_model")
