"""Steps of optimizers and of the moving average of the weights that a value on the device can cancel."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def step(optimizer: torch.optim.Optimizer, cancel: Tensor) -> None:
    """Step if `cancel` [] is 0.0, not if it is 1.0. Only optimizers without fused kernels wait for this value."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):  # it reads what torch's GradScaler would set
        optimizer.grad_scale, optimizer.found_inf = None, cancel
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
    elif not cancel:
        optimizer.step()


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    names: Sequence[str],
    saved_names: Sequence[str] | None = None,
) -> None:
    """Give an optimizer the state of a saved optimizer for the same parameters. The options of the optimizer stay.

    Args:
        saved: state dict of the saved optimizer.
        names: names of the optimizer's parameters, in its order.
        saved_names: names of the saved optimizer's parameters, in its order; None: the same names in the same order. A
            parameter without saved state starts anew.

    Raises:
        ValueError, KeyError, TypeError: the state belongs to other parameters.
    """
    own = optimizer.state_dict()
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    if len(numbers) != len(saved_names or names):
        raise ValueError(f"the optimizer's state is of {len(numbers)} parameters instead of {len(names)}")
    number_of = dict(zip(saved_names or names, numbers, strict=True))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {}
    for i, (name, parameter) in enumerate(zip(names, parameters, strict=True)):
        if saved["state"].get(number_of.get(name)):
            state[i] = {key: _like(name, parameter, x) for key, x in saved["state"][number_of[name]].items()}
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # read by a schedule that begins in the middle


def _like(name: str, parameter: Tensor, value: Any) -> Any:
    """A value of the state in the memory layout of its parameter: fused kernels ignore strides."""
    if not isinstance(value, Tensor) or not value.dim():  # a number of steps
        return value
    if value.shape != parameter.shape:
        raise ValueError(f"the optimizer's state of {name} is of shape {list(value.shape)}")
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)


class SGD(torch.optim.SGD):
    """torch's SGD with momentum that starts at zero. Without dampening, the first step is the same as torch's.

    torch creates the momentum in the first step. If this step is cancelled, as the first steps of float16 training are,
    torch's fused kernel leaves the momentum uninitialised.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """One step, as torch's."""
        for group in self.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if parameter.grad is not None and "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return super().step(closure)


class EMA(AveragedModel):
    """Exponential moving average of a model's parameters and buffers in `module`. The first update copies the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        tensors = list(itertools.chain(self.module.parameters(), self.module.buffers()))
        self._averaged = [x.detach() for x in tensors if x.is_floating_point()]
        self._copied = [x for x in tensors if not x.is_floating_point()]  # counters
        # The average descends the squared distance to the model: this is one fused kernel, which can be cancelled.
        self._descent = torch.optim.SGD(self._averaged, lr=1 - decay, fused=True)

    def begin_at(self, model: nn.Module) -> None:
        """Copy the model, unless the average has begun already."""
        if self.n_averaged == 0:
            self.module.load_state_dict(model.state_dict())

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, cancel: Tensor) -> None:
        """Include the model in the average if `cancel` [] is 0.0, not if it is 1.0."""
        tensors = list(itertools.chain(model.parameters(), model.buffers()))
        models = [x.detach() for x in tensors if x.is_floating_point()]
        counters = [x for x in tensors if not x.is_floating_point()]
        if self.n_averaged == 0:
            torch._foreach_copy_(self._averaged, models)
        else:
            for averaged, difference in zip(self._averaged, torch._foreach_sub(self._averaged, models), strict=True):
                averaged.grad = difference
            step(self._descent, cancel)
            self._descent.zero_grad(set_to_none=True)
        for copied, counter in zip(self._copied, counters, strict=True):
            copied.copy_(torch.where(cancel.bool(), copied, counter))
        self.n_averaged += 1
