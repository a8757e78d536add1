"""Steps that the device itself can cancel, for optimizers and for the moving average of the weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def step(optimizer: torch.optim.Optimizer, cancel: Tensor) -> None:
    """Step unless `cancel` [] is 1.0 rather than 0.0; only optimizers without fused kernels have to wait for it."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):  # it reads what torch's GradScaler would give it
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
    """Give an optimizer the state that another one had of the same parameters; its options stay its own.

    Args:
        saved: state dict of the other one.
        names: of this one's parameters, in its order.
        saved_names: of the other one's; None means the same in the same order. Who is not among them starts anew.

    Raises:
        ValueError, KeyError, TypeError: the state is not of these parameters.
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
        group["initial_lr"] = group["lr"]  # a schedule that begins in the middle reads it


def _like(name: str, parameter: Tensor, value: Any) -> Any:
    """A value of the state, which has to lie in memory as the parameter does: fused kernels ignore strides."""
    if not isinstance(value, Tensor) or not value.dim():  # a number of steps
        return value
    if value.shape != parameter.shape:
        raise ValueError(f"the optimizer's state of {name} is of shape {list(value.shape)}")
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)


class SGD(torch.optim.SGD):
    """torch's SGD, with momentum that starts at zero; without dampening, the first step is the same.

    torch makes the momentum in the first step. If that step is cancelled, as the first ones of float16 training are,
    its fused kernel leaves the momentum uninitialised.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """As torch's."""
        for group in self.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if parameter.grad is not None and "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return super().step(closure)


class EMA(AveragedModel):
    """Exponential moving average of a model's parameters and buffers, `module`; the first update copies the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        tensors = list(itertools.chain(self.module.parameters(), self.module.buffers()))
        self._averaged = [x.detach() for x in tensors if x.is_floating_point()]
        self._copied = [x for x in tensors if not x.is_floating_point()]  # counters
        # The average descends the squared distance to the model: one fused kernel, which can be cancelled.
        self._descent = torch.optim.SGD(self._averaged, lr=1 - decay, fused=True)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, cancel: Tensor) -> None:
        """Include the model unless `cancel` [] is 1.0 rather than 0.0."""
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
