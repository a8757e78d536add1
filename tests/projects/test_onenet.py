"""OneNet's configs are the recipes of the paper's repository; losses of two processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import instantiate
from torch import nn

from la_det import model_zoo
from la_det.matchers import Hungarian, OneNet
from la_det.modeling.criteria import reduce_losses
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile

DATA = Path(__file__).parents[1] / "data" / "onenet"
CONFIGS = [
    "onenet_fcos_r50_fpn_270k_ms_coco",
    "onenet_retinanet_r50_fpn_270k_ms_coco",
    "onenet_min_r50_fpn_270k_ms_coco",
    "onenet_fcos_r50_fpn_47k_crowdhuman",
    "onenet_retinanet_r50_fpn_47k_crowdhuman",
]


@pytest.mark.parametrize("name", CONFIGS)
def test_recipe(name):
    config = model_zoo.get_config(f"OneNet/{name}")
    crowdhuman, retinanet = "crowdhuman" in name, "retinanet" in name
    max_iter, drops = (46875, [37500]) if crowdhuman else (270000, [210000, 250000])
    assert config.train.max_iter == max_iter
    multiplier = instantiate(config.lr_multiplier)
    values = [multiplier(i / max_iter) for drop in drops for i in (drop - 1, drop)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01][: len(values)]) and multiplier(0) == pytest.approx(0.01)
    assert multiplier(500 / max_iter) == pytest.approx(0.505)
    assert config.train.clip_grad == {"max_norm": 1.0, "per_parameter": False}
    assert config.train.init_checkpoint.endswith("torchvision/R-50.pkl")
    train = config.dataloader.train
    assert train.mapper.image_format == config.model.input_format == "RGB"
    assert config.dataloader.test.mapper.augmentations[0].max_size == (1400 if crowdhuman else 1333)
    resize = train.mapper.augmentations[0 if crowdhuman else -1]
    assert (resize.short_edge_length, resize.max_size) == (list(range(640, 897, 32)), 1400 if crowdhuman else 1500)
    assert crowdhuman or not train.dataset.filter_empty
    model = instantiate(config.model)
    matcher = model.criteria[0].matcher
    assert type(matcher) is (OneNet if "_min_" in name else Hungarian)
    assert (matcher.cost.corners, matcher.cost.eps) == (True, 1e-8)
    rule = model.inference
    limit = 500 if crowdhuman else 100
    assert (rule.max_detections, rule.candidate_rule.topk, rule.candidate_rule.cap) == (limit, limit, False)
    assert (rule.score_threshold, rule.nms_threshold) == (0, None)
    assert model.num_classes == (1 if crowdhuman else 80)
    assert model.backbone.top_block.in_feature == "res5"
    assert any(isinstance(m, nn.GroupNorm) for m in model.head.modules()) != retinanet
    predictor = model.head.predictors["main"]
    assert predictor.boxes.bias.any() and predictor.boxes.bias.abs().max() <= 1 / 48
    bound = (6 / (9 * 256 + 9 * predictor.boxes.out_channels)) ** 0.5  # Xavier's
    assert 0.9 * bound < predictor.boxes.weight.abs().max() <= bound
    assert predictor.logits.bias.unique().item() == pytest.approx(-4.59512)


def test_everything_has_the_same_learning_rate_and_decay():
    config = model_zoo.get_config(f"OneNet/{CONFIGS[0]}")
    config.optimizer.params.model = instantiate(config.model)
    groups = instantiate(config.optimizer).param_groups
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(4e-5, 1e-4)}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # 2 towers of 4 x (3x3x256x256, with norm + 512) and 5 scales, then the predictors' convolutions with biases.
        (CONFIGS[0], 2 * 4 * (589824 + 512) + 5 + 84 * 2305),
        (CONFIGS[1], 2 * 4 * 589824 + 9 * 84 * 2305),
    ],
)
def test_head_has_the_official_number_of_parameters(name, size):
    head = instantiate(model_zoo.get_config(f"OneNet/{name}").model).head
    assert sum(p.numel() for p in head.parameters()) == size


def test_equal_ground_truths_may_exchange_their_priors_in_the_check():
    exchange = golden_module("onenet").exchange_equals
    boxes, classes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 8, 8]]), torch.tensor([1, 1, 1])
    expected = torch.tensor([5, 7, 9])
    assert torch.equal(exchange(torch.tensor([7, 5, 9]), expected, boxes, classes), expected)
    assert exchange(torch.tensor([9, 7, 5]), expected, boxes, classes).tolist() == [9, 7, 5]
    assert exchange(torch.tensor([7, 5, 9]), expected, boxes, torch.tensor([0, 1, 1])).tolist() == [7, 5, 9]


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    criterion, *case = golden_module("onenet").read_case(GoldenFile(DATA / f"fcos_rank{rank}.npz"), "hungarian")
    losses = reduce_losses(criterion(*case, progress=0.0))
    torch.save({name: loss.item() for name, loss in losses.items()}, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes(tmp_path):
    """Real ones, as made the golden files; the golden check itself only averages over both files."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        golden = GoldenFile(DATA / f"fcos_rank{rank}.npz")
        losses = torch.load(tmp_path / f"{rank}.pth")
        assert len(losses) == 3
        assert losses == pytest.approx({name: golden.number(f"hungarian.{name}") for name in losses}, rel=1e-5)
