"""One training loop for Detectron2 0.6 and upstream main: AMP, gradient accumulation, clipping, EMA, exact resuming."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from la_det.engine.random_state import get_random_state, set_random_state
from la_det.errors import UserError


class Trainer(TrainerBase):
    """Runs `model(batch) -> {loss name: scalar}` and the optimizer; all else is done by Detectron2's hooks.

    Args:
        model: on its device, wrapped in DistributedDataParallel where there are several processes.
        data_loader: endless batches `list[dict]` of this process, in the order in which training is to see them.
        amp_dtype: autocast to this type (float16 with loss scaling); None trains in float32.
        grad_accum_steps: split each batch into so many forward and backward passes. Every pass normalises its losses by
            its own part of the batch, so the sum is close, and not equal, to the undivided one.
        clip_grad_norm: bound of the L2 norm; 0 is off.
        clip_per_parameter: bound each parameter's norm by itself, as Detectron2 does, and not that of all together.
        ema: moving average of the model to update after each step.
        output_dir: folder for the batch of a loss that is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: torch.dtype | None = None,
        grad_accum_steps: int = 1,
        clip_grad_norm: float = 0.0,
        clip_per_parameter: bool = False,
        ema: AveragedModel | None = None,
        output_dir: str = ".",
    ) -> None:
        super().__init__()
        self.model = model.train()
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.amp_dtype = amp_dtype
        self.grad_accum_steps = grad_accum_steps
        self.clip_grad_norm = clip_grad_norm
        self.clip_per_parameter = clip_per_parameter
        self.ema = ema
        self.output_dir = output_dir
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)
        self._random_states: list[dict[str, Any]] = []

    def before_train(self) -> None:
        self._batches = iter(self.data_loader)
        super().before_train()
        if self._random_states:  # last, so that nothing above draws from a restored generator
            self._restore_random_state()

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad(set_to_none=True)
        try:
            losses = self._forward_backward(batch)
        except FloatingPointError as error:  # a matcher met predictions that are not finite
            self._stop(str(error), {}, batch)
        self._write_metrics(losses, data_time, batch)  # stops before a loss that is not finite reaches the weights
        self.grad_scaler.unscale_(self.optimizer)
        self._clip_gradients()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(unwrap(self.model))

    def _forward_backward(self, batch: list[dict]) -> dict[str, Tensor]:
        """Leave the batch's mean gradient in the parameters; return its mean losses, detached."""
        steps = self.grad_accum_steps
        totals: dict[str, Tensor] = {}
        for i in range(steps):
            with self._reduce_gradients(last=i == steps - 1):
                with torch.autocast(self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None):
                    losses = self.model(batch[i::steps])
                self.grad_scaler.scale(sum(losses.values()) / steps).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach() / steps
        return totals

    def _reduce_gradients(self, last: bool) -> contextlib.AbstractContextManager:
        """Only the last of several passes averages the gradients over the processes."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _clip_gradients(self) -> None:
        if not self.clip_grad_norm:
            return
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for clipped in [[p] for p in parameters] if self.clip_per_parameter else [parameters]:
            nn.utils.clip_grad_norm_(clipped, self.clip_grad_norm)

    def _write_metrics(self, losses: dict[str, Tensor], data_time: float, batch: list[dict]) -> None:
        local = torch.stack([loss.float() for loss in losses.values()])
        mean = local.clone()
        if comm.get_world_size() > 1:
            dist.all_reduce(mean)
            mean /= comm.get_world_size()
        local_values, mean_values = torch.stack((local, mean)).tolist()  # the trainer's one host sync per step
        if not math.isfinite(sum(mean_values)):
            bad = [
                f"{name} is {value}"
                for name, value in zip(losses, local_values, strict=True)
                if not math.isfinite(value)
            ]
            self._stop(", ".join(bad) or "a loss of another process is not finite", losses, batch)
        means = dict(zip(losses, mean_values, strict=True))
        self.storage.put_scalars(data_time=data_time, total_loss=sum(mean_values), **means)

    def _stop(self, reason: str, losses: dict[str, Tensor], batch: list[dict]) -> NoReturn:
        """Write the batch to disk and end the training with an error that names iteration, reason and images."""
        path = os.path.join(self.output_dir, f"non_finite_{self.iter:07d}_rank{comm.get_rank()}.pth")
        torch.save({"iteration": self.iter, "losses": losses, "batch": batch}, path)
        images = ", ".join(str(record.get("file_name", "?")) for record in batch)
        raise UserError(
            f"iteration {self.iter}: {reason}; images: {images}; the batch is in {path}; check these images' "
            "annotations, lower the learning rate or clip gradients (train.clip_grad.max_norm)"
        )

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint. Every process must call it: the random states are gathered from all."""
        return super().state_dict() | {
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "random_states": comm.gather(get_random_state()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self._random_states = state_dict["random_states"]

    def _restore_random_state(self) -> None:
        if len(self._random_states) == comm.get_world_size():  # another number warns where the stream is restored
            set_random_state(self._random_states[comm.get_rank()])


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model
