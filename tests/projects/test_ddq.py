"""DDQ's configs are the recipes of the paper's repository; losses of two processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.matchers import DDQ
from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.criteria import loss_terms, reduce_losses
from la_det.modeling.layers import EvalBatchNorm2d
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile

DATA = Path(__file__).parents[1] / "data" / "ddq_fcn"


@pytest.mark.parametrize(
    ("name", "max_iter", "drops", "clip"),
    [
        ("ddq_fcn_r50_fpn_12ep_coco", 87960, (8, 11), 0.0),
        ("ddq_fcn_r50_fpn_36ep_ms_coco", 263880, (27, 33), 10.0),
    ],
)
def test_recipe(name, max_iter, drops, clip):
    config = model_zoo.get_config(f"DDQ/{name}")
    assert config.train.max_iter == max_iter
    multiplier = instantiate(config.lr_multiplier)
    values = [multiplier((7330 * epoch + i) / max_iter) for epoch in drops for i in (-1, 0)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01])
    assert multiplier(0) == pytest.approx(0.001) and multiplier(250 / max_iter) == pytest.approx(0.5005)
    assert config.train.clip_grad == {"max_norm": clip, "per_parameter": False}
    assert config.train.init_checkpoint.endswith("torchvision/R-50.pkl")
    train = config.dataloader.train
    assert train.mapper.image_format == config.model.input_format == "RGB"
    assert train.dataset.filter_empty and train.total_batch_size == 16
    resize = train.mapper.augmentations[0 if max_iter == 87960 else -1]
    sides = 800 if max_iter == 87960 else list(range(480, 801, 32))
    assert (resize.short_edge_length, resize.max_size) == (sides, 1333)
    config.optimizer.params.model = instantiate(config.model)
    groups = instantiate(config.optimizer).param_groups
    assert [(group["lr"], group["weight_decay"], group["betas"]) for group in groups] == [(5e-5, 0.1, (0.9, 0.999))]


def test_model():
    model = instantiate(model_zoo.get_config("common/models/ddq_fcn").model)
    main, auxiliary = model.criteria
    assert [c.queries.nms_threshold for c in (main, auxiliary)] == [0.7, None]
    assert [c.queries.topk for c in (main, auxiliary)] == [1000, 1000]
    assert [c.matcher.topk for c in (main, auxiliary)] == [1, 8]
    assert all(type(c.matcher) is DDQ and not c.matcher.train_empty for c in (main, auxiliary))
    assert [list(c.losses) for c in (main, auxiliary)] == [["loss_cls", "loss_bbox"], ["aux_loss_cls", "aux_loss_bbox"]]
    rule = model.inference
    assert (rule.queries.topk, rule.queries.nms_threshold) == (1000, 0.7)
    assert (rule.nms_threshold, rule.max_detections, rule.score_threshold, rule.clip) == (None, 300, 0.0, True)
    assert type(model.backbone.top_block) is LastLevelP6P7WithoutReLU and model.backbone.top_block.in_feature == "res5"
    norms = [m for m in model.backbone.modules() if isinstance(m, EvalBatchNorm2d)]
    assert len(norms) == 42 and all(m.weight.requires_grad for m in norms)
    assert [tower.shuffled for tower in (model.head.cls_tower, model.head.box_tower)] == [2, 1]


def test_inference_leaves_the_auxiliary_branch_out():
    config = model_zoo.get_config("DDQ/ddq_fcn_r18_fpn_shapes_tiny").model
    model = instantiate(config).eval()
    assert model.training_only_keys() == {key for key in model.state_dict() if ".auxiliary." in key}
    assert list(model.head([torch.zeros(1, 64, 4, 4)] * 5, ["main"])) == ["main"]


def test_poto_on_distinct_queries():
    """Ours: POTO in all else."""
    config, poto = (model_zoo.get_config(f"POTO/{name}_r50_fpn_3x_ms_coco") for name in ("poto_distinct", "poto"))
    for queries in (config.model.criteria[0].pop("queries"), config.model.inference.queries):
        assert (queries.topk, queries.nms_threshold) == (1000, 0.7)
    assert config.model.criteria == poto.model.criteria and config.model.head == poto.model.head
    config.model, poto.model = {}, {}
    assert config == poto


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    case = golden_module("ddq_fcn").read_case(GoldenFile(DATA / f"ddp_rank{rank}.npz"))
    losses = reduce_losses(loss_terms(*case, progress=0.0))
    torch.save({name: loss.item() for name, loss in losses.items()}, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes(tmp_path):
    """Real ones, as made the golden files; the golden check itself only averages over both files."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        golden = GoldenFile(DATA / f"ddp_rank{rank}.npz")
        losses = torch.load(tmp_path / f"{rank}.pth")
        assert len(losses) == 4
        assert losses == pytest.approx({name: golden.number(name) for name in losses}, rel=1e-5)
