"""One training loop for Detectron2 0.6 and upstream main: AMP, gradient accumulation, clipping, EMA, exact resuming."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from la_det.engine.optimizers import EMA, load_optimizer, step
from la_det.engine.random_state import get_random_state, set_random_state
from la_det.errors import UserError, explain
from la_det.signals import Interrupted, stop_signals

logger = logging.getLogger(__name__)

LEAST_SCALE = 1.0  # of float16's loss; torch begins at 65,536, and halves it after each gradient that is not finite


@dataclass
class Step:
    """A step whose values are on their way from the device.

    Attributes:
        iteration: number of the step.
        batch: batch of this process.
        data_time: seconds that the step waited for the batch.
        losses: names of the losses.
        values: [2, n + 2] values of this process, and means over all processes, of the n losses, the gradient's norm
            and whether a signal asked to stop.
        arrived: event after which `values` can be read; None on a CPU.
    """

    iteration: int
    batch: list[dict]
    data_time: float
    losses: list[str]
    values: Tensor
    arrived: torch.cuda.Event | None


class Trainer(TrainerBase):
    """Runs `model(batch) -> {loss name: scalar}` and the optimizer; Detectron2's hooks do all else.

    A step that is not finite changes neither the weights, nor the optimizer's state, nor the EMA. The device decides
    this, so nothing waits. The process reads a step's losses during the next step, or when `flush` is called. If the
    step was not finite, it stops with a `UserError`. After a gradient that is not finite, only float16's loss scaling
    goes on, until the scale is below 1: then it is not the scale that makes the gradient infinite.

    A signal to stop (see `StopSignals`) is noted. It ends the training after a step that the hooks have saved. All
    processes end after the same step: the step of the signal or one of the next two.

    Args:
        model: model on its device, with several processes wrapped in DistributedDataParallel.
        data_loader: endless batches `list[dict]` of this process, in the order of the training.
        amp_dtype: type for autocast (float16 with loss scaling); None trains in float32.
        grad_accum_steps: number of forward and backward passes into which a batch is split. Each pass normalises its
            losses by its own part of the batch, so the sum is close, but not equal, to the loss of the whole batch.
        clip_grad_norm: upper bound of the gradient's L2 norm; 0: no clipping.
        clip_per_parameter: which norm is clipped.
            True: that of each parameter, as in Detectron2.
            False: that of all parameters together.
        ema: moving average of the model, which each step updates.
        log_period: period of the iterations whose losses are in `storage` when the hooks run, as writers need them.
            The losses of other iterations get there one step later, under the number of their iteration.
        output_dir: folder for the batch of a loss that is not finite.

    Attributes:
        unwritten: whether the values of the resumed checkpoint's iteration are missing in the log.
        evaluated: whether the resumed run has done its final evaluation.
        stopping: whether the training stops after the hooks of this step.
        ends_early: set by hooks to finish the training after this step.
        finished: whether all steps are done.
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
        ema: EMA | None = None,
        log_period: int = 1,
        output_dir: str = ".",
    ) -> None:
        super().__init__()
        self.storage = EventStorage()
        self.model = model.train()
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.amp_dtype = amp_dtype
        self.grad_accum_steps = grad_accum_steps
        self.clip_grad_norm = clip_grad_norm
        self.clip_per_parameter = clip_per_parameter
        self.ema = ema
        self.log_period = log_period
        self.output_dir = output_dir
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)
        self._random_states: list[dict[str, Any]] = []
        self._unread: Step | None = None
        self._last = -1  # the last iteration that is done
        self._scalars: dict[str, tuple[float, bool]] = {}
        self._stop_elsewhere = False
        self.unwritten = self.evaluated = self.stopping = self.ends_early = self.finished = False

    def train(self, start_iter: int, max_iter: int) -> None:
        """Do the iterations `start_iter` to `max_iter` - 1.

        Raises:
            Interrupted: a signal asked to stop.
            UserError: a step was not finite.
        """
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self._last = start_iter - 1
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage, stop_signals.deferred():
            try:
                self.before_train()
                while self.iter < max_iter and not self.ends_early:
                    self.before_step()
                    self.run_step()
                    self._last = self.iter
                    self.after_step()
                    self.iter += 1
                self.finished = True
            except Exception as error:
                if not explain(error):
                    logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        self._batches = iter(self.data_loader)
        if self.unwritten:
            self.storage.iter = self.start_iter - 1
            for name, (value, smoothing_hint) in self._scalars.items():
                self.storage.put_scalar(name, value, smoothing_hint)
        super().before_train()
        if self._random_states:  # last: nothing above may draw from a restored generator
            self._restore_random_state()

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad(set_to_none=True)
        try:
            losses = self._forward_backward(batch)
        except FloatingPointError as error:  # a matcher met predictions that are not finite
            self.flush()
            self._stop(self.iter, str(error), {}, batch)
        self.flush()  # reads the step before, while the device works at this step
        norm = self._update()
        stop = torch.full_like(norm, float(stop_signals.received > 0))
        values, arrived = _to_host(self._over_processes(torch.stack([*losses.values(), norm, stop])))
        self._unread = Step(self.iter, batch, data_time, list(losses), values, arrived)

    def after_step(self) -> None:
        done = self.iter + 1
        if done % self.log_period == 0 or done == self.max_iter:
            self.flush()
        alone = comm.get_world_size() == 1
        self.stopping = (stop_signals.received > 0 if alone else self._stop_elsewhere) and done < self.max_iter
        super().after_step()
        if self.stopping:
            comm.synchronize()  # the main process has saved the checkpoint
            state = f"after iteration {self.iter}, which is saved; go on with --resume"
            raise Interrupted(stop_signals.received or signal.SIGTERM, state)

    def _forward_backward(self, batch: list[dict]) -> dict[str, Tensor]:
        """Leave the mean gradient of the batch in the parameters. Return its mean losses, detached, in float32.

        If a loss is not finite, no gradient is finite, in any process.
        """
        steps = self.grad_accum_steps
        totals: dict[str, Tensor] = {}
        for i in range(steps):
            with self._reduce_gradients(last=i == steps - 1):
                with torch.autocast(self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None):
                    losses = self.model(batch[i::steps])
                loss = sum(losses.values())
                one = 1 + 0 * loss.detach()  # or NaN
                self.grad_scaler.scale(one * loss / steps).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach().float() / steps
        return totals

    def _reduce_gradients(self, last: bool) -> contextlib.AbstractContextManager:
        """Context in which only the last of several passes averages the gradients over the processes."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _update(self) -> Tensor:
        """Step if the gradient is finite. Return the gradient's norm [] before clipping."""
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        cancel = (~norm.isfinite()).float()
        self._clip_gradients(parameters, norm)
        step(self.optimizer, cancel)
        self.grad_scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(unwrap(self.model), cancel)
        return norm

    def _clip_gradients(self, parameters: list[nn.Parameter], norm: Tensor) -> None:
        if self.clip_grad_norm and self.clip_per_parameter:
            gradients = [p.grad for p in parameters]
            factors = self.clip_grad_norm / (torch.stack(torch._foreach_norm(gradients)) + 1e-6)
            torch._foreach_mul_(gradients, list(factors.clamp(max=1.0)))
        elif self.clip_grad_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_grad_norm, norm)

    def _over_processes(self, local: Tensor) -> Tensor:
        """[2, ...] the values of this process, and their mean over all processes."""
        mean = local.clone()
        if comm.get_world_size() > 1:
            dist.all_reduce(mean)
            mean /= comm.get_world_size()
        return torch.stack((local, mean))

    def flush(self) -> None:
        """Put the losses of the last step into `storage`, unless they are there already.

        Hooks that need the losses, or need to know that the step was finite, call this method in every process.

        Raises:
            UserError: the step was not finite; the message names iteration, reason and images.
        """
        if self._unread is None:
            return
        unread, self._unread = self._unread, None
        if unread.arrived is not None:
            unread.arrived.synchronize()
        *means, norm, stop = unread.values[1].tolist()
        self._stop_elsewhere = stop > 0
        losses = dict(zip(unread.losses, unread.values[0, :-2], strict=True))
        if not math.isfinite(sum(means)):
            bad = [f"{name} is {value.item()}" for name, value in losses.items() if not value.isfinite()]
            reason = ", ".join(bad) or "a loss of another process is not finite"
            self._stop(unread.iteration, reason, losses, unread.batch)
        if not math.isfinite(norm):
            scale = self.grad_scaler.get_scale() if self.grad_scaler.is_enabled() else 0.0  # on a GPU, this waits
            if scale < LEAST_SCALE:
                also = f", also with a loss scale of {scale:g}" if scale else ""
                self._stop(unread.iteration, f"the gradient's norm is {norm}{also}", losses, unread.batch)
        now, self.storage.iter = self.storage.iter, unread.iteration
        self.storage.put_scalars(
            data_time=unread.data_time, total_loss=sum(means), **dict(zip(unread.losses, means, strict=True))
        )
        self.storage.iter = now

    def _stop(self, iteration: int, reason: str, losses: dict[str, Tensor], batch: list[dict]) -> NoReturn:
        """Write the batch to disk and end the training with an error that names iteration, reason and images."""
        path = os.path.join(self.output_dir, f"non_finite_{iteration:07d}_rank{comm.get_rank()}.pth")
        try:
            torch.save({"iteration": iteration, "losses": losses, "batch": batch}, path)
            place = f"is in {path}"
        except (OSError, RuntimeError) as error:  # a full disk must not hide what happened
            place = f"could not be written to {path} ({str(error).splitlines()[0]})"
        images = ", ".join(str(record.get("file_name", "?")) for record in batch)
        raise UserError(
            f"iteration {iteration}: {reason}; images: {images}; the batch {place}; check these images' "
            "annotations, lower the learning rate or clip gradients (train.clip_grad.max_norm)"
        )

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint. Every process must call this method: random states are gathered from all.

        Raises:
            UserError: the last step was not finite, or the weights have overflown.
        """
        self.flush()
        weights = [x for x in unwrap(self.model).state_dict().values() if x.is_floating_point()]
        if not nn.utils.get_total_norm(weights).isfinite():
            raise UserError(
                f"iteration {self.iter}: the weights are not finite, and no checkpoint is written; lower the learning "
                "rate or clip gradients (train.clip_grad.max_norm)"
            )
        latest, hints = self.storage.latest(), self.storage.smoothing_hints()
        return super().state_dict() | {
            "iteration": self._last,
            "optimizer": self.optimizer.state_dict(),
            "parameters": self._parameter_names(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "random_states": comm.gather(get_random_state()),
            # Values that the log does not have yet when the checkpoint is written.
            "scalars": {name: (value, hints[name]) for name, (value, i) in latest.items() if i == self._last},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`, with the optimizer's options of the config.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: the state does not fit this training.
        """
        iteration = state_dict["iteration"]
        if type(iteration) is not int or iteration < 0:
            raise ValueError(f"its iteration is {iteration!r:.80}")
        load_optimizer(self.optimizer, state_dict["optimizer"], self._parameter_names(), state_dict.get("parameters"))
        if state_dict["grad_scaler"] and self.grad_scaler.is_enabled():
            if not 0 < float(state_dict["grad_scaler"]["scale"]) < math.inf:
                raise ValueError("its loss scale is no positive number")
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        for hook in self._hooks:
            if type(hook).__qualname__ in state_dict.get("hooks", {}):
                hook.load_state_dict(state_dict["hooks"][type(hook).__qualname__])
        self._scalars = {str(k): (float(v), bool(hint)) for k, (v, hint) in state_dict.get("scalars", {}).items()}
        self._random_states = state_dict["random_states"]
        before = get_random_state()
        self._restore_random_state()  # only to find errors early; the state is restored when the training begins
        set_random_state(before)
        self.iter = iteration

    def _parameter_names(self) -> list[str]:
        """Names of the optimizer's parameters, in its order."""
        names = {parameter: name for name, parameter in unwrap(self.model).named_parameters()}
        return [names.get(p, "") for group in self.optimizer.param_groups for p in group["params"]]

    def _restore_random_state(self) -> None:
        if len(self._random_states) == comm.get_world_size():  # else the data stream warns when it is restored
            set_random_state(self._random_states[comm.get_rank()])


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values on the host and, if they come from a GPU, the event of their arrival."""
    if not values.is_cuda:
        return values, None
    host = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived
