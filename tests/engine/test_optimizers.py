import copy

import pytest
import torch
from torch import nn

from la_det.engine.optimizers import EMA, SGD, load_optimizer, step

GO, CANCEL = torch.tensor(0.0), torch.tensor(1.0)


def network(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3))
    return net.to(memory_format=memory_format)


def backward(net: nn.Module, seed: int) -> None:
    net.zero_grad()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    net(images).square().mean().backward()


def close(net: nn.Module, other: nn.Module) -> bool:
    return all(a.allclose(b, atol=1e-6) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_cancelled_first_steps_leave_no_trace(memory_format):
    ours, theirs = network(memory_format), network()
    optimizer = SGD(ours.parameters(), 0.1, momentum=0.9, weight_decay=0.01, fused=True)
    plain = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, weight_decay=0.01, foreach=False)
    for seed in range(4):
        backward(ours, seed)
        step(optimizer, CANCEL if seed < 2 else GO)
        if seed >= 2:
            backward(theirs, seed)
            plain.step()
    assert close(ours, theirs)


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1), lambda p: torch.optim.AdamW(p, fused=True)])
def test_cancelled_step_changes_nothing(make):
    net = network()
    optimizer, before = make(net.parameters()), copy.deepcopy(net)
    backward(net, 0)
    step(optimizer, CANCEL)
    assert all(map(torch.equal, net.parameters(), before.parameters()))
    step(optimizer, GO)
    assert not any(map(torch.equal, net.parameters(), before.parameters()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_average_of_parameters_and_buffers(memory_format):
    net = network(memory_format)
    ema, expected = EMA(net, 0.9), None
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for seed in range(4):
        backward(net, seed)
        optimizer.step()
        ema.update_parameters(net, GO)
        state = {name: value.double() for name, value in net.state_dict().items() if value.is_floating_point()}
        expected = state if expected is None else {n: 0.9 * v + 0.1 * state[n] for n, v in expected.items()}
    found = ema.module.state_dict()
    assert expected.keys() == {name for name in found if "tracked" not in name}
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-7)
    assert found["1.num_batches_tracked"] == net[1].num_batches_tracked == 4 and ema.n_averaged == 4


def test_cancelled_average_stays_even_beside_buffers_that_are_not_finite():
    net = network()
    ema = EMA(net, 0.9)
    ema.update_parameters(net, GO)
    before = copy.deepcopy(ema.module.state_dict())
    net[1].running_mean.fill_(float("nan"))
    net[1].num_batches_tracked += 1
    net[0].weight.data += 1
    ema.update_parameters(net, CANCEL)
    assert all(torch.equal(value, before[name]) for name, value in ema.module.state_dict().items())


def names(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize(
    "make", [lambda p: SGD(p, 0.1, momentum=0.9, fused=True), lambda p: torch.optim.AdamW(p, fused=True)]
)
def test_state_saved_in_another_memory_format_fits(make):
    """Fused kernels read memory in order, whatever the strides."""
    nets = [network(), network(), network(torch.channels_last)]
    optimizers = [make(net.parameters()) for net in nets]
    backward(nets[0], 0)
    step(optimizers[0], GO)
    for net, optimizer in list(zip(nets, optimizers, strict=True))[1:]:
        net.load_state_dict(nets[0].state_dict())
        load_optimizer(optimizer, copy.deepcopy(optimizers[0].state_dict()), names(net))
    for net, optimizer in zip(nets, optimizers, strict=True):
        backward(net, 1)
        step(optimizer, GO)
    assert close(nets[0], nets[1]) and close(nets[0], nets[2])


def test_options_are_those_of_the_new_optimizer():
    """Such as kernels, learning rate and weight decay; a schedule multiplies the new learning rate."""
    old, new = network(), network()
    plain, fused = torch.optim.AdamW(old.parameters()), torch.optim.AdamW(new.parameters(), lr=0.5, fused=True)
    backward(old, 0)
    plain.step()
    load_optimizer(fused, plain.state_dict(), names(new))
    backward(new, 1)
    step(fused, CANCEL)
    assert all(group["fused"] and group["lr"] == group["initial_lr"] == 0.5 for group in fused.param_groups)
    assert torch.equal(fused.state[new[0].weight]["exp_avg"], plain.state[old[0].weight]["exp_avg"])


def test_parameters_are_found_by_name_in_other_groups():
    old, new = network(), network()
    before = SGD(old.parameters(), 0.1, momentum=0.9)
    backward(old, 0)
    before.step()
    after = SGD([{"params": [new[2].bias]}, {"params": [new[0].weight, new[2].weight]}], 0.1, momentum=0.9)
    load_optimizer(after, before.state_dict(), ["2.bias", "0.weight", "2.weight"], names(old))
    for a, b in ((new[2].bias, old[2].bias), (new[0].weight, old[0].weight), (new[2].weight, old[2].weight)):
        assert torch.equal(after.state[a]["momentum_buffer"], before.state[b]["momentum_buffer"])


def test_state_of_other_parameters_is_refused():
    net = network()
    optimizer = SGD(net.parameters(), 0.1, momentum=0.9)
    backward(net, 0)
    optimizer.step()
    altered = optimizer.state_dict()
    altered["state"][0]["momentum_buffer"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"state of 0.weight is of shape \[3\]"):
        load_optimizer(optimizer, altered, names(net))
    with pytest.raises(ValueError, match="of 5 parameters instead of 4"):
        load_optimizer(optimizer, altered, names(net)[:4])
