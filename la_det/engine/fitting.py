"""A recipe fitted to one's own data: data set, length, image size, backbone, batch and first weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from la_det.data.shapes import SHAPES
from la_det.data.transforms import ResizeShortestEdge
from la_det.engine.own_dataset import use_own_dataset
from la_det.errors import UserError
from la_det.model_zoo.names import get_config_file

logger = logging.getLogger(__name__)

LEAST_ITERATIONS = 2000  # of a schedule that follows the number of images, with the recipe's batch
ASPECT = 5 / 3  # longest image side over the short one, about that of 1333 x 800, where the recipe does not resize
PARTS = 10  # a short run evaluates and saves after each of so many parts

# Images in the training sets of recipes, after those without objects were left out.
IMAGES = {
    "coco_2017_train": 117_266,
    "crowdhuman_train": 15_000,
    "shapes_crowd_odgt_train": SHAPES["shapes_crowd"].num_train,
} | {f"{name}_train": spec.num_train for name, spec in SHAPES.items()}


@dataclass(frozen=True)
class Fitting:
    """What is to differ from a recipe; None leaves it as it is.

    Attributes:
        dataset: one's own data in the form of `la_det.data.sources.FORMAT`.
        epochs: length of the training.
        image_size: short side of test images, pixels; training sizes and long sides keep their ratio to it.
        backbone: "resnet18", "resnet34", "resnet50", "resnet101" or "timm:<name of a timm model>", with weights of
            ImageNet.
        batch: images of all processes in a step. The learning rate grows linearly with it, the iterations inversely.
        weights: a trained model's weights to begin with; parameters of another shape are left out, as those of other
            classes are.
    """

    dataset: str | None = None
    epochs: float | None = None
    image_size: int | None = None
    backbone: str | None = None
    batch: int | None = None
    weights: str | None = None

    def apply(self, cfg: DictConfig, *, keep_length: bool = False) -> None:
        """Change the config.

        Args:
            keep_length: leave the number of iterations as it is, since the user has set it.

        Raises:
            UserError: something is impossible, or data cannot be read.
        """
        for name in ("epochs", "image_size", "batch"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} {value}: it has to be positive")
        recipe = _Length.of(cfg)
        auto_scale_lr(cfg)  # before the epochs become iterations, which are those of the whole training
        if self.backbone is not None:
            use_backbone(cfg, self.backbone)
        if self.dataset is not None:
            use_own_dataset(cfg, self.dataset)
        if self.image_size is not None:
            use_image_size(cfg, self.image_size)
        if self.batch is not None:
            use_batch(cfg, self.batch)
        if self.weights is not None:
            cfg.train.init_checkpoint = self.weights
        if not keep_length and (self.epochs is not None or (self.dataset is not None and recipe.images)):
            fit_schedule(cfg, recipe, self.epochs)


@dataclass(frozen=True)
class _Length:
    """Length of a recipe's training; `images` is 0 if its data set is not known."""

    iterations: int
    batch: int
    images: int

    @staticmethod
    def of(cfg: DictConfig) -> _Length:
        names = cfg.dataloader.train.dataset.names
        images = sum(IMAGES.get(name, 0) for name in ([names] if isinstance(names, str) else names))
        scaling, batch = cfg.train.auto_scale_lr, cfg.dataloader.train.total_batch_size
        return _Length(cfg.train.max_iter, scaling.reference_batch_size if scaling.enabled else batch, images)


def fit_schedule(cfg: DictConfig, recipe: _Length, epochs: float | None) -> None:
    """Set the number of iterations, and what follows it: warm-up, evaluations, checkpoints, looks at the assignment.

    Args:
        epochs: passes over the training set. None: the recipe's, but iterations between those of `LEAST_ITERATIONS`
            with the recipe's batch and the recipe's own number.
    """
    images, batch = len(instantiate(cfg.dataloader.train.dataset)), cfg.dataloader.train.total_batch_size
    wanted, reason = epochs, ""
    if epochs is None:
        wanted = recipe.iterations * recipe.batch / recipe.images
        least, most = (n * recipe.batch / batch for n in (min(LEAST_ITERATIONS, recipe.iterations), recipe.iterations))
        iterations = round(min(max(wanted * images / batch, least), most))
        kept = abs(iterations - wanted * images / batch) <= 1
        reason = f"; the recipe has {wanted:.1f} epochs{'' if kept else ' of a larger set'}; --epochs changes it"
    else:
        iterations = round(wanted * images / batch)
    train, old, iterations = cfg.train, cfg.train.max_iter, max(iterations, 1)
    train.max_iter = iterations
    logger.info(
        "Schedule: %d iterations, %.1f epochs of %d images in batches of %d%s",
        iterations,
        iterations * batch / images,
        images,
        batch,
        reason,
    )
    part = -(-iterations // PARTS)
    for node, key in ((train, "eval_period"), (train.checkpointer, "period"), (train, "diagnostics_period")):
        node[key] = min(node[key], part)  # 0 is off
    if "warmup_length" in cfg.lr_multiplier:
        cfg.lr_multiplier.warmup_length = min(cfg.lr_multiplier.warmup_length * old, iterations / 10) / iterations


def use_batch(cfg: DictConfig, batch: int) -> None:
    """Set the batch, and fit learning rate and iterations to it."""
    scaling, old = cfg.train.auto_scale_lr, cfg.dataloader.train.total_batch_size
    cfg.dataloader.train.total_batch_size = batch
    scaling.update(enabled=True, reference_batch_size=old)
    auto_scale_lr(cfg)
    scaling.reference_batch_size = batch  # nothing scales again


def auto_scale_lr(cfg: DictConfig) -> None:
    """Fit the schedule to `total_batch_size`: the learning rate grows linearly with it, the iterations inversely.

    It switches itself off, so nothing is scaled twice.

    The learning-rate multipliers of configs/common/schedules.py are functions of the relative progress. So steps and
    warm-up keep their relative places.
    """
    factor = cfg.dataloader.train.total_batch_size / cfg.train.auto_scale_lr.reference_batch_size
    if not cfg.train.auto_scale_lr.enabled or factor == 1:
        return
    cfg.train.auto_scale_lr.enabled = False  # the saved config is the scaled one
    old = (cfg.optimizer.lr, cfg.train.max_iter)
    cfg.optimizer.lr = old[0] * factor
    cfg.train.max_iter = round(old[1] / factor)
    logger.info(
        "auto_scale_lr: batch size %d instead of %d: learning rate %g -> %g, iterations %d -> %d",
        cfg.dataloader.train.total_batch_size,
        cfg.train.auto_scale_lr.reference_batch_size,
        old[0],
        cfg.optimizer.lr,
        old[1],
        cfg.train.max_iter,
    )


def use_image_size(cfg: DictConfig, size: int) -> None:
    """Set the short side of test images, and all other sizes of resizes and crops by the same factor."""
    mappers = [cfg.dataloader.train.mapper, cfg.dataloader.test.mapper]
    for mapper in mappers:
        if not any("short_edge_length" in node for node in _calls(mapper.augmentations)):
            resize = L(ResizeShortestEdge)(short_edge_length=size, max_size=round(ASPECT * size))
            mapper.augmentations = [resize, *mapper.augmentations]
    tests = [node.short_edge_length for node in _calls(mappers[1].augmentations) if "short_edge_length" in node]
    now = max(tests[0]) if isinstance(tests[0], ListConfig) else tests[0]
    for mapper in mappers:
        for node in _calls(mapper.augmentations):
            for key in ("short_edge_length", "max_size", "crop_size"):
                if key in node and node.get("crop_type", "absolute_range").startswith("absolute"):
                    node[key] = _scaled(node[key], size / now)


def _calls(node: object) -> Iterator[DictConfig]:
    """All nodes of augmentations, those inside others too."""
    if isinstance(node, DictConfig):
        yield node
    if isinstance(node, (DictConfig, ListConfig)):
        for part in node.values() if isinstance(node, DictConfig) else node:
            yield from _calls(part)


def _scaled(value: int | ListConfig, factor: float) -> int | list[int]:
    return [round(factor * x) for x in value] if isinstance(value, ListConfig) else round(factor * value)


def use_backbone(cfg: DictConfig, name: str) -> None:
    """Put another backbone below the same FPN, with the pixels of its weights on ImageNet, and begin with these.

    Raises:
        UserError: the name is unknown, timm is not installed, or the config's network has no such FPN.
    """
    kind, _, timm_model = name.partition(":")
    fpn = cfg.model.get("backbone")
    if fpn is None or "top_block" not in fpn or "in_feature" not in fpn.top_block or "criteria" not in cfg.model:
        raise UserError(f"--backbone {name}: this config's network has no FPN from P3 to P7 to put it below")
    resnets = {f"resnet{depth}": depth for depth in (18, 34, 50, 101)}
    parts = LazyConfig.load(str(get_config_file("common/models/backbone")), ("resnet_fpn", "timm_fpn"))
    channels = fpn.out_channels
    if kind == "timm" and timm_model:
        mean, std, options = _of_timm(name, timm_model)
        new, weights = parts[1](timm_model, channels=channels, **options), f"timm://{timm_model}"
    elif name in resnets:
        mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        new, weights = parts[0](resnets[name], channels=channels), f"torchvision://{name}"
    else:
        raise UserError(f"--backbone {name}: there are {', '.join(resnets)} and timm:<name of a timm model>")
    new.top_block = OmegaConf.merge(fpn.top_block, {"in_channels": channels, "in_feature": "p5"})
    cfg.model.backbone = new
    cfg.model.update(pixel_mean=list(mean), pixel_std=list(std), input_format="RGB")
    cfg.dataloader.train.mapper.image_format = "RGB"
    cfg.train.init_checkpoint = weights


def _of_timm(name: str, model: str) -> tuple[list[float], list[float], dict[str, bool]]:
    """Pixel statistics of a timm model's weights, and the options that it needs for images of any size."""
    from la_det.modeling.backbone.timm_backbone import import_timm

    timm = import_timm()
    if not timm.is_model(model):
        close = ", ".join(timm.list_models(f"*{model.split('_')[0]}*")[:5])
        raise UserError(f"--backbone {name}: timm has no model of this name{'; it has ' + close if close else ''}")
    pretrained = timm.get_pretrained_cfg(model)
    options = {"strict_img_size": False} if model.startswith("swin") else {}
    return [255 * x for x in pretrained.mean], [255 * x for x in pretrained.std], options
