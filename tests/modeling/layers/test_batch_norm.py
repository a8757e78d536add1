import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn
from torchvision.models import resnet18

from la_det.checkpoint.initial_weights import convert_torchvision_resnet
from la_det.engine.param_groups import param_groups
from la_det.modeling.layers import EvalBatchNorm2d


def filled(norm):
    """A norm whose statistics and affine parameters are not those it starts with."""
    torch.manual_seed(0)
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + (0.5 if "var" in name else 0))
    return norm


def small_resnet(norm, freeze_at):
    return ResNet(
        BasicStem(3, 8, norm=norm),
        [
            ResNet.make_stage(
                BottleneckBlock,
                1,
                in_channels=8,
                out_channels=8,
                bottleneck_channels=4,
                stride_per_block=[1],
                norm=norm,
            )
            for _ in range(3)
        ],
        out_features=["res2", "res3", "res4"],
        freeze_at=freeze_at,
    )


def test_training_mode_is_batch_norm_in_evaluation():
    layer, plain = filled(EvalBatchNorm2d(6)), filled(nn.BatchNorm2d(6)).eval()
    x, y = (torch.randn(2, 6, 5, 4).requires_grad_() for _ in range(2))
    y.data = x.data
    statistics = layer.running_mean.clone(), layer.running_var.clone()
    layer.train()
    torch.testing.assert_close(layer(x), plain(y))
    layer(x).square().sum().backward()
    plain(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)
    assert torch.equal(layer.running_mean, statistics[0]) and torch.equal(layer.running_var, statistics[1])


def test_frozen_stages_freeze_their_affine_parameters_too():
    model = small_resnet(EvalBatchNorm2d, freeze_at=2)
    frozen = {name.split(".")[0] for name, m in model.named_modules() if isinstance(m, FrozenBatchNorm2d)}
    trained = {name.split(".")[0] for name, m in model.named_modules() if isinstance(m, EvalBatchNorm2d)}
    assert (frozen, trained) == ({"stem", "res2"}, {"res3", "res4"})
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"res3", "res4"}


def test_same_output_as_frozen_batch_norm_with_the_same_weights():
    model, frozen = small_resnet(EvalBatchNorm2d, 2).train(), small_resnet("FrozenBN", 2).train()
    for module in model.modules():
        if isinstance(module, (EvalBatchNorm2d, FrozenBatchNorm2d)):
            filled(module)
    missing, unexpected = frozen.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert all(key.endswith("num_batches_tracked") for key in unexpected)
    x = torch.randn(2, 3, 32, 32)
    for name, output in model(x).items():
        torch.testing.assert_close(output, frozen(x)[name])


def test_no_weight_decay_on_its_parameters():
    model = small_resnet(EvalBatchNorm2d, 2)
    groups = param_groups(model, lr=1.0, weight_decay=0.1, weight_decay_norm=0.0)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    norms = [m for m in model.modules() if isinstance(m, EvalBatchNorm2d)]
    assert norms and decayed
    assert not any(id(p) in decayed for norm in norms for p in norm.parameters())


def test_takes_torchvision_weights():
    torch.manual_seed(0)
    official = filled(resnet18(weights=None)).eval()
    model = ResNet(
        BasicStem(3, 64, norm=EvalBatchNorm2d),
        ResNet.make_default_stages(18, norm=EvalBatchNorm2d),
        out_features=["res5"],
        freeze_at=2,
    ).train()
    missing, unexpected = model.load_state_dict(convert_torchvision_resnet(official.state_dict()), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    x = torch.randn(1, 3, 64, 64)
    features = nn.Sequential(*list(official.children())[:-2])
    torch.testing.assert_close(model(x)["res5"], features(x), rtol=1e-3, atol=1e-3)
