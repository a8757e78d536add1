"""OTA's configs are the recipes of the paper's repository; losses of two processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.matchers import OTA, SimOTA
from la_det.modeling.criteria import reduce_losses
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile

DATA = Path(__file__).parents[1] / "data" / "ota"


@pytest.mark.parametrize(
    ("name", "max_iter", "drops", "sides", "depth", "matcher"),
    [
        ("ota_r50_fpn_1x_coco", 90000, (60000, 80000), 800, 50, OTA()),
        ("ota_r50_fpn_2x_ms_coco", 180000, (120000, 160000), list(range(640, 801, 32)), 50, OTA()),
        ("ota_r101_fpn_2x_ms_coco", 180000, (120000, 160000), list(range(640, 801, 32)), 101, OTA()),
        ("simota_r50_fpn_1x_coco", 90000, (60000, 80000), 800, 50, SimOTA()),
        (
            "simota_square_r50_fpn_1x_coco",
            90000,
            (60000, 80000),
            800,
            50,
            SimOTA(center_radius=1.5, inside_box=False, iou_eps=1e-8),
        ),
    ],
)
def test_recipe(name, max_iter, drops, sides, depth, matcher):
    config = model_zoo.get_config(f"OTA/{name}")
    assert config.train.max_iter == max_iter
    multiplier = instantiate(config.lr_multiplier)
    values = [multiplier(i / max_iter) for drop in drops for i in (drop - 1, drop)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01]) and multiplier(0) == pytest.approx(0.001)
    resize = config.dataloader.train.mapper.augmentations[0]
    assert (resize.short_edge_length, resize.max_size, resize.sample_style) == (sides, 1333, "choice")
    assert config.train.init_checkpoint.endswith(f"MSRA/R-{depth}.pkl")
    assert config.model.backbone.bottom_up.stages.depth == depth
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    assert optimizer.params.weight_decay_norm == 0
    assert config.dataloader.train.dataset.filter_empty
    model = instantiate(config.model)
    assert model.criteria[0].matcher == matcher
    rule = model.inference
    simota = "simota" in name
    assert (rule.score_threshold, rule.nms_threshold) == ((0.01, 0.65) if simota else (0.05, 0.6))
    assert model.head.predictors["main"].priors.offset == (0.5 if simota else 0.0)
    objectness = model.head.predictors["main"].quality.bias
    assert objectness.item() == pytest.approx(-4.59512 if simota else 0)


def test_head_has_the_official_number_of_parameters():
    """2 towers of 4 x (3x3x256x256 + 256 + 512) and 5 scales, then 80 + 4 + 1 maps with biases."""
    head = instantiate(model_zoo.get_config("OTA/ota_r50_fpn_1x_coco").model).head
    assert sum(p.numel() for p in head.parameters()) == 2 * 4 * (589824 + 256 + 512) + 5 + 85 * 2305


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    losses = reduce_losses(golden_module("ota").ota_terms(GoldenFile(DATA / f"ota_rank{rank}.npz")))
    torch.save({name: loss.item() for name, loss in losses.items()}, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes(tmp_path):
    """Real ones, as made the golden files; the golden check itself only averages over both files."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        golden = GoldenFile(DATA / f"ota_rank{rank}.npz")
        losses = torch.load(tmp_path / f"{rank}.pth")
        assert len(losses) == 3
        assert losses == pytest.approx({name: golden.number(name) for name in losses}, rel=1e-5)
