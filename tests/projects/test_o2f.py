"""o2f and o2f-CondInst as a whole: data with masks, training with and without objects, several processes, masks' AP."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from la_det import model_zoo
from la_det.data.builtin import register_shapes
from la_det.data.shapes import ShapesSpec
from la_det.modeling.criteria import reduce_losses
from la_det.structures import DensePredictions, Targets
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile

BOXES, MASKS = "O2F/o2f_r18_fpn_shapes_tiny", "O2F/o2f_condinst_r18_fpn_shapes_tiny"
GOLDEN = Path(__file__).parents[1] / "data" / "o2f" / "condinst_basic.npz"


@pytest.fixture
def mini_shapes(tmp_path):
    """The name of a data set of a few images, with masks in RLE."""
    spec = ShapesSpec("o2f_mini", 128, num_train=6, num_val=3, max_objects=6, min_extent=20, max_extent=77)
    register_shapes(spec, tmp_path)
    yield spec.name
    for split in ("train", "val"):
        DatasetCatalog.remove(f"{spec.name}_{split}")
        MetadataCatalog.remove(f"{spec.name}_{split}")


def with_data(name: str, dataset: str) -> DictConfig:
    config = model_zoo.get_config(name)
    config.dataloader.train.dataset.names = f"{dataset}_train"
    config.dataloader.test.dataset.names = f"{dataset}_val"
    config.dataloader.train.num_workers = config.dataloader.test.num_workers = 0
    return config


def example(objects: int, size=(64, 96)) -> dict:
    """An image with `objects` objects."""
    instances = Instances(size)
    corners = torch.tensor([[4.0 + 20 * i, 6.0, 40.0 + 20 * i, 50.0] for i in range(objects)]).reshape(-1, 4)
    instances.gt_boxes, instances.gt_classes = Boxes(corners), torch.arange(objects)
    masks = torch.zeros(objects, *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    instances.gt_masks = BitMasks(masks)
    return {"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8), "instances": instances}


@pytest.mark.parametrize(
    ("name", "max_iter", "drops", "num_epochs", "sides"),
    [
        ("o2f_r50_fpn_1x_coco", 87960, (58640, 80630), 12, 800),
        ("o2f_r50_fpn_3x_ms_coco", 263880, (175920, 241890), 36, [640, 800]),
        ("o2f_r101_fpn_3x_ms_coco", 263880, (175920, 241890), 36, [640, 800]),
        ("o2f_condinst_r50_fpn_1x_coco", 87960, (58640, 80630), 12, 800),
        ("o2f_condinst_r50_fpn_3x_ms_coco", 263880, (175920, 241890), 36, [640, 800]),
        ("o2f_r50_fpn_47k_crowdhuman", 46900, (37520,), 50, [480, 960]),
    ],
)
def test_recipe(name, max_iter, drops, num_epochs, sides):
    config = model_zoo.get_config(f"O2F/{name}")
    assert config.train.max_iter == max_iter
    multiplier = instantiate(config.lr_multiplier)
    values = [multiplier(i / max_iter) for drop in drops for i in (drop - 1, drop)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01][: 2 * len(drops)])
    warmup = 500 if "condinst" in name else 1000
    assert multiplier((warmup - 1) / max_iter) < 1 and multiplier(warmup / max_iter) == 1
    mapper = config.dataloader.train.mapper
    assert mapper.augmentations[0].short_edge_length == sides
    assert mapper.augmentations[0].sample_style == ("choice" if sides == 800 else "range")
    assert mapper.image_format == config.model.input_format == "RGB"
    assert mapper.use_instance_mask == ("condinst" in name)
    matcher = instantiate(config.model.criteria[0].matcher)
    assert (matcher.num_epochs, matcher.topk) == (num_epochs, 4 if "crowdhuman" in name else 7)
    assert matcher.mask_centers == ("condinst" in name)
    assert instantiate(config.model.inference).nms_threshold is None


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("o2f_r50_fpn_1x_coco", 5140698),
        ("o2f_condinst_r50_fpn_1x_coco", 7460827),
        ("o2f_r50_fpn_47k_crowdhuman", 4958603),
    ],
)
def test_head_has_the_official_number_of_parameters(name, size):
    head = instantiate(model_zoo.get_config(f"O2F/{name}").model).head
    assert sum(p.numel() for p in head.parameters()) == size


def test_parameter_groups_of_condinst():
    """Biases of convolutions learn twice as fast without decay; norms are decayed as weights are."""
    config = model_zoo.get_config(MASKS.replace("r18_fpn_shapes_tiny", "r50_fpn_1x_coco"))
    model = instantiate(config.model)
    config.optimizer.params.model = model
    rule = {
        id(p): (g["lr"], g["weight_decay"]) for g in instantiate(config.optimizer).param_groups for p in g["params"]
    }
    head = model.head
    assert rule[id(head.cls_tower[0].bias)] == rule[id(head.predictors["main"].controller.bias)] == (0.02, 0)
    assert rule[id(head.cls_tower[1].bias)] == rule[id(head.cls_tower[1].weight)] == (0.01, 1e-4)
    assert rule[id(head.scales)] == rule[id(head.cls_tower[0].weight)] == (0.01, 1e-4)


@pytest.mark.parametrize("schedule", ["1x", "3x_ms"])
def test_weight_decay_with_swin(schedule):
    """None for Swin's norms and tables of relative positions; the head's GN decays as weights do."""
    config = model_zoo.get_config(f"O2F/o2f_swin_t_fpn_{schedule}_coco")
    config.model.backbone.bottom_up.pretrained = False
    model = instantiate(config.model)
    config.optimizer.params.model = model
    decays = {id(p): g["weight_decay"] for g in instantiate(config.optimizer).param_groups for p in g["params"]}
    without = {name for name, p in model.named_parameters() if p.requires_grad and decays[id(p)] == 0}
    swin = [name for name, _ in model.named_parameters() if name.startswith("backbone.bottom_up")]
    assert without == {name for name in swin if "norm" in name or name.endswith("relative_position_bias_table")}
    assert len([name for name in without if name.endswith("table")]) == 12
    assert decays[id(model.head.cls_tower[1].weight)] == decays[id(model.head.cls_tower[0].weight)] == 0.05


def test_mapper_gives_masks_of_the_flipped_image(mini_shapes):
    config = with_data(MASKS, mini_shapes)
    config.dataloader.train.mapper.augmentations[0].prob = 1.0
    records, mapper = instantiate(config.dataloader.train.dataset), instantiate(config.dataloader.train.mapper)
    examples = [mapper(copy.deepcopy(record))["instances"] for record in records]
    assert sum(len(instances) for instances in examples) > 0
    for instances in examples:
        assert instances.gt_masks.tensor.shape == (len(instances), 128, 128)
        # The boxes are those of the visible pixels, so a mask of another orientation would not fit.
        torch.testing.assert_close(instances.gt_masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor)


@pytest.mark.parametrize("name", [BOXES, MASKS])
@pytest.mark.parametrize("objects", [(3, 2), (3, 0), (0, 0)])
def test_every_parameter_is_trained_with_and_without_objects(name, objects):
    model = instantiate(model_zoo.get_config(name).model).train()
    losses = model([example(n) for n in objects])
    assert all(loss.isfinite() for loss in losses.values())
    expected = {"loss_cls", "loss_bbox"} | ({"loss_mask", "loss_sem"} if name == MASKS else set())
    assert set(losses) == expected
    if sum(objects) == 0:
        assert all(losses[name] == 0 for name in expected & {"loss_bbox", "loss_mask"})
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_soft_targets_follow_the_trainers_iteration():
    config = model_zoo.get_config("O2F/o2f_r50_fpn_1x_coco")
    model = instantiate(config.model)
    matcher = model.criteria[0].matcher
    per_epoch = 7330
    for iteration, epoch in ((0, 0), (per_epoch - 1, 0), (per_epoch, 1), (7 * per_epoch, 7), (87959, 11)):
        with EventStorage(iteration):
            expected = 0.6 - 0.4 * epoch / 11
            assert matcher.largest_soft_target(model.progress()) == pytest.approx(expected)


def test_evaluation_reports_box_and_mask_ap(mini_shapes):
    config = with_data(MASKS, mini_shapes)
    config.model.inference.score_threshold = 0.0  # random weights
    model = instantiate(config.model)
    loader = instantiate(config.dataloader.test)
    results = inference_on_dataset(model, loader, instantiate(config.dataloader.evaluator))
    assert {"AP", "AP50", "AR"} <= set(results["segm"]) and "AP" in results["bbox"]


def test_masks_belong_to_their_detections():
    """Detections of a batch have the masks that they have alone."""
    config = model_zoo.get_config(MASKS).model
    config.inference.update(score_threshold=0.0, max_detections=10)
    torch.manual_seed(0)
    model = instantiate(config).eval()
    images = [example(0) | {"height": 32, "width": 48}, example(0, (64, 64))]
    with torch.no_grad():
        together = [x["instances"] for x in model(images)]
        alone = model(images[:1])[0]["instances"]
    assert together[0].pred_masks.shape == (len(together[0]), 32, 48)
    assert together[1].pred_masks.shape == (len(together[1]), 64, 64)
    assert 0 < len(alone) <= 10
    assert torch.equal(together[0].priors, alone.priors)
    assert torch.equal(together[0].pred_masks, alone.pred_masks)


def _losses(images: list[int]) -> dict:
    """Losses of CondInst's criterion on images of the golden file, which has two; 2 and 3 are these without objects."""
    golden = GoldenFile(GOLDEN)
    o2f = golden_module("o2f")
    config = o2f.model_config(golden)
    predictions, targets = o2f.read_predictions(golden, config).detach(), o2f.read_targets(golden)
    (criterion,) = instantiate(config.criteria)
    index = torch.tensor([i % 2 for i in images])
    instances = []
    for i in images:
        mine, size = targets.image == i, targets.image_sizes[0]
        fields = {"gt_boxes": Boxes(targets.boxes[mine]), "gt_classes": targets.classes[mine]}
        masks = targets.masks.of_images[i] if i < 2 else torch.zeros(0, *size)
        instances.append(Instances(size, **fields, gt_masks=BitMasks(masks)))
    maps = {name: [x[index] for x in levels] for name, levels in predictions.maps.items()}
    image_maps = {name: x[index] for name, x in predictions.image_maps.items()}
    predictions = DensePredictions(predictions.priors, predictions.codec, maps, image_maps)
    losses = reduce_losses(criterion(predictions, Targets.from_instances(instances), 0.0))
    return {name: loss.item() for name, loss in losses.items()}


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(_losses([[0, 1], [2, 3]][rank]), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_process_without_objects_joins_every_reduction(tmp_path):
    """Two processes, the second without objects: their mean is the loss of one process, where that is global."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    whole = _losses([0, 1, 2, 3])
    for name in ("loss_cls", "loss_bbox"):
        assert (first[name] + second[name]) / 2 == pytest.approx(whole[name], rel=1e-5)
    # These are normalised by each process itself.
    assert first["loss_mask"] == pytest.approx(whole["loss_mask"], rel=1e-5)
    assert second["loss_mask"] == second["loss_bbox"] == 0
