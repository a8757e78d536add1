"""DATE's configs are the recipes of the method, and its normalisers those of real processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import instantiate
from detectron2.data.transforms import AugInput, AugmentationList

from la_det import model_zoo
from la_det.matchers import POTO, Hungarian
from la_det.modeling.criteria import reduce_losses
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile

DATA = Path(__file__).parents[1] / "data" / "date"


@pytest.mark.parametrize(
    ("name", "max_iter", "drops", "depth"),
    [
        ("date_f_r50_fpn_12ep_coco", 87960, (58640, 80630), 50),
        ("date_r_r50_fpn_12ep_coco", 87960, (58640, 80630), 50),
        ("date_f_3dmf_r50_fpn_12ep_coco", 87960, (58640, 80630), 50),
        ("date_atss_r50_fpn_12ep_coco", 87960, (58640, 80630), 50),
        ("date_dw_r50_fpn_12ep_coco", 87960, (58640, 80630), 50),
        ("date_f_r50_fpn_36ep_ms_coco", 263880, (175920, 241890), 50),
        ("date_f_3dmf_r50_fpn_36ep_ms_coco", 263880, (175920, 241890), 50),
        ("date_f_r101_fpn_36ep_ms_coco", 263880, (175920, 241890), 101),
        ("date_f_r50_fpn_30k_crowdhuman", 30000, (20000, 25000), 50),
        ("date_r_r50_fpn_30k_crowdhuman", 30000, (20000, 25000), 50),
    ],
)
def test_recipe(name, max_iter, drops, depth):
    config = model_zoo.get_config(f"DATE/{name}")
    assert config.train.max_iter == max_iter
    multiplier = instantiate(config.lr_multiplier)
    values = [multiplier(i / max_iter) for drop in drops for i in (drop - 1, drop)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01])
    assert multiplier(0) == pytest.approx(0.001) and multiplier(500 / max_iter) == pytest.approx(0.5005)
    assert config.train.clip_grad == {"max_norm": 0.1, "per_parameter": False}
    assert not config.train.amp.enabled
    assert config.train.init_checkpoint.endswith(f"MSRA/R-{depth}.pkl")
    assert config.model.backbone.bottom_up.stages.depth == depth
    assert config.model.pixel_mean == [102.9801, 115.9465, 122.7717]
    crowdhuman = "crowdhuman" in name
    assert config.model.num_classes == (1 if crowdhuman else 80)
    assert isinstance(instantiate(config.model.criteria[0].matcher), Hungarian if crowdhuman else POTO)
    rule = instantiate(config.model.inference)
    retina = "date_r_" in name
    topk = 1000 if crowdhuman or retina else 100
    assert (rule.candidate_rule.topk, rule.max_detections) == (topk, 500 if crowdhuman else 100)
    assert (rule.score_threshold, rule.nms_threshold) == (0.01, None)


def test_learning_rates_and_decay():
    """A tenth for the ResNet; the same decay for everything."""
    config = model_zoo.get_config("DATE/date_f_r50_fpn_12ep_coco")
    model = instantiate(config.model)
    config.optimizer.params.model = model
    optimizer = instantiate(config.optimizer)
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 1e-4
        of_resnet = {names[id(p)].startswith("backbone.bottom_up.") for p in group["params"]}
        assert of_resnet == {group["lr"] < 1e-4}
    assert sorted(g["lr"] for g in optimizer.param_groups) == pytest.approx([4e-5, 4e-4])
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    ("name", "sides", "longest"),
    [
        ("date_f_r50_fpn_36ep_ms_coco", range(480, 801, 32), 1333),
        ("date_f_r50_fpn_30k_crowdhuman", range(640, 897, 32), 1400),
    ],
)
def test_detr_augmentation(name, sides, longest):
    config = model_zoo.get_config(f"DATE/{name}")
    augmentations = instantiate(config.dataloader.train.mapper.augmentations)
    np.random.seed(0)  # noqa: NPY002 (Detectron2's augmentations draw from it)
    cropped = flipped = 0
    for _ in range(24):
        inputs = AugInput(np.zeros((480, 640, 3), dtype=np.uint8))
        transforms = AugmentationList(augmentations)(inputs).transforms
        kinds = [type(t).__name__ for t in transforms]
        assert kinds[0] in ("HFlipTransform", "NoOpTransform") and kinds[-1] == "ResizeTransform"
        flipped += kinds[0] == "HFlipTransform"
        height, width = inputs.image.shape[:2]
        assert min(height, width) in sides or max(height, width) == longest
        assert max(height, width) <= longest
        if "CropTransform" in kinds:
            cropped += 1
            crop = transforms[kinds.index("CropTransform")]
            resized = transforms[kinds.index("CropTransform") - 1]
            assert min(resized.new_h, resized.new_w) in (400, 500, 600)
            assert 384 <= crop.w <= min(600, resized.new_w) and 384 <= crop.h <= min(600, resized.new_h)
        else:
            assert height / width == pytest.approx(480 / 640, abs=0.01)
    assert 4 < cropped < 20 and 4 < flipped < 20


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # 2 towers of 4 x (3x3x256x256 + 512) and 5 scales, then the predictors' convolutions with biases.
        ("date_f_r50_fpn_12ep_coco", 2 * 4 * (589824 + 512) + 5 + (80 + 4 + 80 + 4 + 1) * 2305),
        ("date_r_r50_fpn_12ep_coco", 2 * 4 * (589824 + 512) + 5 + (80 + 4 + 9 * 84) * 2305),
        ("date_f_3dmf_r50_fpn_12ep_coco", 2 * 4 * (589824 + 512) + 5 + (80 + 4 + 80 + 4 + 1 + 1 + 256) * 2305 + 512),
    ],
)
def test_head_has_the_official_number_of_parameters(name, size):
    head = instantiate(model_zoo.get_config(f"DATE/{name}").model).head
    assert sum(p.numel() for p in head.parameters()) == size


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    losses = reduce_losses(golden_module("date").read_case(GoldenFile(DATA / f"ddp_date_f_rank{rank}.npz")).terms())
    torch.save({name: loss.item() for name, loss in losses.items()}, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes(tmp_path):
    """Real ones, as made the golden files; the golden check itself only averages over both files."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        golden = GoldenFile(DATA / f"ddp_date_f_rank{rank}.npz")
        losses = torch.load(tmp_path / f"{rank}.pth")
        assert len(losses) == 6
        assert losses == pytest.approx({name: golden.number(name) for name in losses}, rel=1e-5)
