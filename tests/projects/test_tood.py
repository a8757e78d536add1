"""TOOD's recipes are those of the method, and its normalisers those of real processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.matchers import ATSS, TOOD, matcher_at
from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.candidate_rules import LocationsFirst
from la_det.modeling.criteria import reduce_losses
from la_det.modeling.layers import ModulatedDeformConv2d
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile, read_targets

DATA = Path(__file__).parents[1] / "data" / "tood"
ONE_X, TWO_X = (87960, (58640, 80630)), (175920, (117280, 161260))
# name: depth, schedule, deformable
ROWS = {
    "tood_r50_fpn_1x_coco": (50, ONE_X, False),
    "tood_anchor_r50_fpn_1x_coco": (50, ONE_X, False),
    "tood_r50_fpn_2x_ms_coco": (50, TWO_X, False),
    "tood_r101_fpn_2x_ms_coco": (101, TWO_X, False),
    "tood_dcnv2_r101_fpn_2x_ms_coco": (101, TWO_X, True),
}


@pytest.mark.parametrize("name", ROWS)
def test_recipe(name):
    depth, (max_iter, steps), deformable = ROWS[name]
    config = model_zoo.get_config(f"TOOD/{name}")
    assert config.train.max_iter == max_iter and config.train.clip_grad.max_norm == 0
    rate = instantiate(config.lr_multiplier)
    expected = {0: 0.001, 250: 0.5, 500: 1, steps[0] - 1: 1, steps[0]: 0.1, steps[1]: 0.01, max_iter - 1: 0.01}
    assert {i: rate(i / max_iter) for i in expected} == pytest.approx(expected, rel=2e-3)
    resize = config.dataloader.train.mapper.augmentations[0]
    sides = ([480, 800], "range") if "ms" in name else (800, "choice")
    assert (resize.short_edge_length, resize.sample_style) == sides
    assert resize.max_size == 1333
    assert config.dataloader.train.mapper.image_format == config.model.input_format == "RGB"
    assert config.dataloader.train.total_batch_size == 16 and config.dataloader.train.dataset.filter_empty
    stages = config.model.backbone.bottom_up.stages
    assert stages.depth == depth and bool(stages.get("dcn_stages")) == deformable
    assert str(depth) in config.train.init_checkpoint and "torchvision" in config.train.init_checkpoint


@pytest.mark.parametrize("name", ROWS)
def test_atss_decides_in_four_epochs(name):
    config = model_zoo.get_config(f"TOOD/{name}")
    matcher = instantiate(config.model.criteria[0].matcher)
    for iteration, kind in ((0, ATSS), (29319, ATSS), (29320, TOOD), (config.train.max_iter - 1, TOOD)):
        found = matcher_at(matcher, iteration / config.train.max_iter)
        assert type(found) is kind and found.pad_to == 32


def test_model():
    config = model_zoo.get_config("TOOD/tood_r50_fpn_1x_coco")
    model = instantiate(config.model)
    assert sum(p.numel() for p in model.head.parameters()) == 4_823_790
    assert isinstance(model.backbone.top_block, LastLevelP6P7WithoutReLU)
    priors = model.head.predictors["main"].priors([(2, 3)] * 5, torch.device("cpu"))
    assert priors.points[:2].tolist() == [[0, 0], [8, 0]] and priors.boxes[0].tolist() == [-32, -32, 32, 32]
    rule = model.inference
    assert isinstance(rule.candidate_rule, LocationsFirst) and rule.candidate_rule.topk == 1000
    assert (rule.score_threshold, rule.nms_threshold, rule.max_detections, rule.clip) == (0.05, 0.6, 100, True)
    assert rule.score == model.criteria[0].score
    config.optimizer.params.model = model
    (group,) = instantiate(config.optimizer).param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.01, 1e-4, 0.9)
    frozen = {name.split(".")[2] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}


@pytest.mark.slow
def test_dcnv2():
    model = instantiate(model_zoo.get_config("TOOD/tood_dcnv2_r101_fpn_2x_ms_coco").model)
    assert sum(p.numel() for p in model.head.parameters()) == 5_321_670
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, ModulatedDeformConv2d)}
    in_head = [name for name in layers if name.startswith("head.")]
    assert in_head == ["head.predictors.main.tower.0", "head.predictors.main.tower.3"]
    assert len(layers) - len(in_head) == 4 + 23 + 3
    assert {layer.offset.out_channels for name, layer in layers.items() if name not in in_head} == {27}


def losses_of(golden: GoldenFile, progress: float) -> dict[str, torch.Tensor]:
    config, _, predictions = golden_module("tood").read_maps(golden)
    (criterion,) = instantiate(config.criteria)
    return reduce_losses(criterion(predictions, read_targets(golden), progress))


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    golden = GoldenFile(DATA / f"tood_world_rank{rank}.npz")
    losses = [{name: loss.item() for name, loss in losses_of(golden, p).items()} for p in (0.0, 1.0)]
    torch.save(losses, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes(tmp_path):
    """Real ones, in both phases; the golden check itself only averages over both files."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        golden = GoldenFile(DATA / f"tood_world_rank{rank}.npz")
        for phase, losses in zip(("atss", "tal"), torch.load(tmp_path / f"{rank}.pth"), strict=True):
            names = {"loss_cls": "loss_cls", "loss_bbox": "loss_box"}
            expected = {ours: golden.number(f"{phase}.{theirs}") for ours, theirs in names.items()}
            assert losses == pytest.approx(expected, rel=1e-5)
