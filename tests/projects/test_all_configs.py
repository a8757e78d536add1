"""Every config of projects/ builds, takes a training step and infers, at full width and depth on a small input."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf

from la_det import model_zoo

HEIGHT, WIDTH = 128, 160
CONFIGS = model_zoo.list()
KEYS = {"dataloader", "lr_multiplier", "model", "optimizer", "train"}


def first_of_each_model() -> list[str]:
    """Configs whose models differ: schedules of one model need one training step only."""
    seen: dict[str, str] = {}
    for name in CONFIGS:
        config = model_zoo.get_config(name)
        config.train.max_iter = 100  # the only thing in which a model's schedules differ
        seen.setdefault(repr(config.model), name)
    return list(seen.values())


def inputs(config: DictConfig, objects: int) -> dict:
    """An image with `objects` objects, as a data mapper gives it."""
    generator = torch.Generator().manual_seed(objects)
    corners = torch.rand(objects, 2, generator=generator) * torch.tensor([WIDTH * 0.5, HEIGHT * 0.5])
    sizes = 16 + torch.rand(objects, 2, generator=generator) * 48
    boxes = torch.cat([corners, corners + sizes], 1)
    instances = Instances((HEIGHT, WIDTH), gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.arange(objects) % config.model.get("num_classes", 1)
    masks = torch.zeros(objects, HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    instances.gt_masks = BitMasks(masks)
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances, "height": 2 * HEIGHT, "width": 2 * WIDTH}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_complete(name: str, tmp_path) -> None:
    config = model_zoo.get_config(name)
    assert set(config) >= KEYS
    assert config.train.max_iter > 0
    # What the trainer saves beside its checkpoints loads to the same config.
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    loaded = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert OmegaConf.to_container(loaded.train) == OmegaConf.to_container(config.train)


@pytest.mark.slow
@pytest.mark.parametrize("name", first_of_each_model())
def test_trains_a_step_and_infers(name: str) -> None:
    config = model_zoo.get_config(name)
    torch.manual_seed(0)
    model = instantiate(config.model).train()
    config.optimizer.params.model = model
    optimizer = instantiate(config.optimizer)

    with EventStorage():  # Detectron2's models write there
        losses = model([inputs(config, 5), inputs(config, 0)])
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{parameter_name} has no gradient"
            assert parameter.grad.isfinite().all(), f"{parameter_name} has a gradient that is not finite"
    optimizer.step()
    optimizer.zero_grad()

    model.eval()
    with torch.no_grad():
        (result,) = model([inputs(config, 0)])
    instances = result["instances"]
    assert instances.image_size == (2 * HEIGHT, 2 * WIDTH)
    assert instances.pred_boxes.tensor.isfinite().all()
    assert ((instances.scores >= 0) & (instances.scores <= 1)).all()
