"""One global batch on 1 and on 2 processes gives the same losses and gradients."""

import pytest
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from la_det import model_zoo

SIZE = 64
# Objects of each image: the second process gets an image without any, and fewer than the first.
OBJECTS = (4, 2, 1, 0)
CONFIGS = (
    "FCOS/fcos_r18_fpn_shapes_tiny",
    "POTO/poto_3dmf_aux_r18_fpn_shapes_tiny",
    "ATSS/atss_r18_fpn_shapes_tiny",
    "PAA/paa_r18_fpn_shapes_tiny",
    "AutoAssign/autoassign_r18_fpn_shapes_tiny",
)


def build_model(name: str) -> nn.Module:
    """The small twin, with a norm that does not look at the batch."""
    config = model_zoo.get_config(name)
    for stage in (config.model.backbone.bottom_up.stem, *config.model.backbone.bottom_up.stages):
        stage.norm = "GN"
    torch.manual_seed(0)
    return instantiate(config.model).train()


def make_batch() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    batch = []
    for count in OBJECTS:
        corners = torch.rand(count, 2, generator=generator) * SIZE / 2
        boxes = torch.cat([corners, corners + 12 + torch.rand(count, 2, generator=generator) * 16], 1)
        instances = Instances((SIZE, SIZE), gt_boxes=Boxes(boxes), gt_classes=torch.arange(count))
        batch.append({"image": torch.rand(3, SIZE, SIZE, generator=generator) * 255, "instances": instances})
    return batch


def losses_and_gradients(model: nn.Module, batch: list[dict]) -> tuple[dict, dict]:
    losses = model(batch)
    sum(losses.values()).backward()
    return {k: v.detach() for k, v in losses.items()}, {k: p.grad for k, p in model.named_parameters()}


def process(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    losses, gradients = losses_and_gradients_of_both(name, rank)
    if rank == 0:
        torch.save((losses, gradients), f"{folder}/result")
    dist.destroy_process_group()


def losses_and_gradients_of_both(name: str, rank: int) -> tuple[dict, dict]:
    """Means over the processes. The model ends before its process group does: torch may hang in the other order."""
    model = DistributedDataParallel(build_model(name), broadcast_buffers=False)
    losses, gradients = losses_and_gradients(model, make_batch()[2 * rank : 2 * rank + 2])
    for loss in losses.values():
        dist.all_reduce(loss)
    return {k: v / 2 for k, v in losses.items()}, {k.removeprefix("module."): g for k, g in gradients.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_give_the_gradients_of_one(name: str, tmp_path) -> None:
    losses, gradients = losses_and_gradients(build_model(name), make_batch())
    multiprocessing.start_processes(process, (name, str(tmp_path)), nprocs=2, start_method="spawn")
    their_losses, their_gradients = torch.load(tmp_path / "result", weights_only=True)
    for key, loss in losses.items():
        torch.testing.assert_close(their_losses[key], loss, rtol=1e-5, atol=1e-7)
    assert their_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        error = (their_gradients[key] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-3)
        assert error <= 1e-5, f"{key}: relative error {error:.1e}"
