"""Learning-rate multipliers over the relative progress, whose shape stays when `train.max_iter` is changed."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CompositeParamScheduler, CosineParamScheduler, MultiStepParamScheduler
from omegaconf import DictConfig


def multistep(
    max_iter: int,
    steps: tuple[int, ...],
    warmup_iter: int = 1000,
    warmup_factor: float = 0.001,
    warmup_method: str = "linear",
) -> DictConfig:
    """Warm-up from `warmup_factor` ("linear" or "constant"), then division by 10 at each of `steps`, in iterations."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(steps) + 1)],
            milestones=[*steps, max_iter],
        ),
        warmup_factor=warmup_factor,
        warmup_length=warmup_iter / max_iter,
        warmup_method=warmup_method,
    )


def one_cycle(warmup: float = 0.1, start: float = 0.04, end: float = 0.0) -> DictConfig:
    """Cosine from `start` to 1 over the fraction `warmup` of the training, then cosine to `end`."""
    return L(CompositeParamScheduler)(
        schedulers=[
            L(CosineParamScheduler)(start_value=start, end_value=1.0),
            L(CosineParamScheduler)(start_value=1.0, end_value=end),
        ],
        lengths=[warmup, 1 - warmup],
        interval_scaling=["rescaled", "rescaled"],
    )


# COCO with 16 images per batch. 1x is 90,000 iterations; in longer schedules, drops are 60k and 20k before the end.
lr_multiplier_1x = multistep(90000, (60000, 80000))
lr_multiplier_2x = multistep(180000, (120000, 160000))
lr_multiplier_3x = multistep(270000, (210000, 250000))
lr_multiplier_6x = multistep(540000, (480000, 520000))
lr_multiplier_9x = multistep(810000, (750000, 790000))

# For recipes that count epochs, of 7,330 iterations each; drops after 8 and 11, 16 and 22, 24 and 33 epochs.
lr_multiplier_12_epochs = multistep(87960, (58640, 80630))
lr_multiplier_24_epochs = multistep(175920, (117280, 161260))
lr_multiplier_36_epochs = multistep(263880, (175920, 241890))
