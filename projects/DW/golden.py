"""Golden files of DW: weights and losses, the refinement step, the head, inference."""

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.geometry import aligned_giou, aligned_iou
from la_det.matchers.dw import GIOU_EPS, center_prior
from la_det.modeling.criteria import reduce_losses
from la_det.modeling.heads import BranchPredictor
from la_det.modeling.heads.boundary_refinement import boundary_points, refine
from la_det.steps.candidates import inside_box
from la_det.structures import Assignment, DensePredictions, Pairs, Targets
from la_det.testing.golden import GoldenFile, compare_detections

CONFIG = "DW/dw_r50_fpn_1x_coco"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "ltrb": "boxes", "obj": "quality"}
# la_det's name of each layer in the files.
LAYERS = {
    "conv_cls": "predictors.main.logits",
    "conv_reg": "predictors.main.boxes",
    "conv_centerness": "predictors.main.quality",
    "reg_offset": "predictors.main.refinement.offset",
}


def check(golden: GoldenFile) -> None:
    """Checks whatever a file holds."""
    if any(key.startswith("w:") for key in golden):
        check_head(golden)
    elif "rawreg_l0" in golden:
        check_refinement(golden)
    else:
        check_losses(golden)
        if "det_boxes_0" in golden:
            check_inference(golden)
    golden.ignore("strides", "num_classes", "soft_prior", "image_sizes")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node of the config, with the file's classes, strides and prior."""
    config = model_zoo.get_config(CONFIG).model
    config.num_classes = golden.number("num_classes")
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    if "soft_prior" in golden:
        config.criteria[0].matcher.soft_prior = bool(golden.number("soft_prior"))
    return config


def read_predictions(config: DictConfig, maps: dict[str, list[Tensor]]) -> DensePredictions:
    """Predictions with the file's maps."""
    predictor = instantiate(config.head.predictors.main)
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], maps["logits"][0].device)
    return DensePredictions(priors, predictor.codec, maps)


def read_instances(golden: GoldenFile) -> list[Instances]:
    """The ground truths of each image."""
    instances = []
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        fields = {"gt_boxes": Boxes(golden.tensor(f"gt_boxes_{i}")), "gt_classes": golden.tensor(f"gt_classes_{i}")}
        instances.append(Instances(tuple(size), **fields))
    return instances


def check_losses(golden: GoldenFile) -> None:
    """Weights, losses and gradients."""
    config = model_config(golden)
    maps = {name: [x.requires_grad_() for x in golden.levels(key)] for key, name in MAPS.items()}
    predictions, instances = read_predictions(config, maps), read_instances(golden)
    (criterion,) = instantiate(config.criteria)
    decision = criterion.assign(predictions, Targets.from_instances(instances), progress=0.0)
    targets, assignment = decision.targets, decision.assignment
    check_weights(golden, predictions, targets, assignment)
    terms = criterion(predictions, targets, progress=0.0)
    for key, name in (("pos_avg_factor", "loss_loc"), ("neg_avg_factor", "loss_cls_neg")):
        golden.close(key, terms[name].normaliser.clamp(min=terms[name].floor), rtol=1e-5)
    check_total_and_gradients(golden, terms, maps={key: maps[name] for key, name in MAPS.items()})
    for i, image in enumerate(instances):
        maps_of_image = {name: [x[i : i + 1].detach() for x in levels] for name, levels in maps.items()}
        terms = criterion(read_predictions(config, maps_of_image), Targets.from_instances([image]), progress=0.0)
        for key, name in (("cls_pos", "loss_cls_pos"), ("loc", "loss_loc"), ("cls_neg", "loss_cls_neg")):
            golden.close(f"raw_{key}_{i}", terms[name].weight * terms[name].numerator, rtol=1e-5)


def check_weights(golden: GoldenFile, predictions: DensePredictions, targets: Targets, assignment: Assignment) -> None:
    """Everything that the matcher computes on the way, made dense for the comparison."""
    priors, num_priors = predictions.priors, len(predictions.priors)
    inside = inside_box(priors, targets)
    boxes = predictions.detach().boxes_at(inside.image, inside.prior)
    iou = aligned_iou(boxes, targets.boxes[inside.gt], GIOU_EPS)
    soft = bool(golden.number("soft_prior"))

    def dense(pairs: Pairs, values: Tensor) -> Tensor:
        result = torch.zeros(num_priors, len(targets))
        result[pairs.prior, pairs.gt] = values
        return result

    per_pair = {
        "inside": dense(inside, torch.ones(len(inside))),
        "iou": dense(inside, iou),
        "center_prior": dense(inside, center_prior(priors, targets, inside, soft)),
        "pos_weight": dense(assignment.pairs, assignment.weight),
        "giou_loss": _all_giou_losses(predictions.detach(), targets),
    }
    negative = torch.ones(targets.num_images, num_priors, predictions.num_classes)
    n = assignment.negatives
    negative[n.image, n.prior, n.cls] = n.weight
    start = 0
    for i, count in enumerate(targets.counts):
        for name, values in per_pair.items():
            golden.close_to_max(f"{name}_{i}", values[:, start : start + count], 1e-4)
        golden.close(f"neg_weight_{i}", negative[i], atol=1e-4)
        golden.close(f"neg_sum_{i}", (1 - n.weight)[n.image == i].sum(), rtol=1e-5)
        start += count


def _all_giou_losses(predictions: DensePredictions, targets: Targets) -> Tensor:
    """1 - GIoU of every location's box and every ground truth: [R, G]."""
    prior = torch.arange(len(predictions.priors)).repeat(len(targets))
    gt = torch.arange(len(targets)).repeat_interleave(len(predictions.priors))
    boxes = predictions.boxes_at(targets.image[gt], prior)
    return 1 - aligned_giou(boxes, targets.boxes[gt], GIOU_EPS).view(len(targets), len(predictions.priors)).T


def check_total_and_gradients(golden: GoldenFile, terms: dict, maps: dict[str, list[Tensor]]) -> None:
    """Each loss, their sum, and its gradient with respect to the maps, which are named as in the file."""
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(name, loss, rtol=1e-5)
    total = sum(losses.values())
    golden.close("loss_total", total, rtol=1e-5)
    for x in sum(maps.values(), []):
        x.grad = None
    total.backward()
    for name, levels in maps.items():
        for level, x in enumerate(levels):
            if f"grad_{name}_l{level}" in golden:
                golden.close_to_max(f"grad_{name}_l{level}", x.grad, 1e-4)


def check_inference(golden: GoldenFile) -> None:
    """Detections of the recipe, and with fewer candidates and detections."""
    config = model_config(golden)
    maps = {name: golden.levels(key) for key, name in MAPS.items()}
    predictions = read_predictions(config, maps)
    image_sizes = golden.array("image_sizes").tolist()
    for prefix, topk, max_detections in (("det", 1000, 100), ("detsmall", 30, 10)):
        config.inference.max_detections, config.inference.candidates.topk = max_detections, topk
        detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
        for i in range(len(image_sizes)):
            keep = detections.valid[i]
            keys = (f"{prefix}_boxes_{i}", f"{prefix}_scores_{i}", f"{prefix}_classes_{i}")
            actual = (detections.boxes[i, keep], detections.scores[i, keep], detections.classes[i, keep])
            compare_detections(golden, keys, *actual, box_atol=1e-2, score_atol=1e-5)


def check_refinement(golden: GoldenFile) -> None:
    """The refinement alone, and the losses through it."""
    config = model_config(golden)
    scales = golden.tensor("level_scales")
    cls, obj, reg, off = (
        [x.requires_grad_() for x in golden.levels(key)] for key in ("cls", "obj", "rawreg", "rawoff")
    )
    priors = instantiate(config.head.predictors.main.priors)([x.shape[-2:] for x in cls], golden.device)
    refined, ups = [], golden.levels("up")
    for level, (x, offset, stride) in enumerate(zip(reg, off, priors.level_strides, strict=True)):
        start, end = priors.level_starts[level : level + 2]
        points = priors.points[start:end].T.unflatten(1, x.shape[-2:])
        coarse = (x * scales[level]).relu() * stride
        golden.close_to_max(f"coarse_ltrb_l{level}", coarse, 1e-4)
        points_read = boundary_points(coarse, offset, stride)
        golden.close_to_max(f"sample_offset_l{level}", points_read, 1e-4)
        refined.append(refine(coarse, offset, points, stride))
        golden.close_to_max(f"ltrb_l{level}", refined[-1], 1e-4)
    for level, (x, offset) in enumerate(zip(reg, off, strict=True)):
        grads = torch.autograd.grad(refined[level], (x, offset), ups[level], retain_graph=True)
        golden.close_to_max(f"upgrad_rawreg_l{level}", grads[0], 1e-4)
        golden.close_to_max(f"upgrad_rawoff_l{level}", grads[1], 1e-4)
    predictions = read_predictions(config, {"logits": cls, "boxes": refined, "quality": obj})
    (criterion,) = instantiate(config.criteria)
    terms = criterion(predictions, Targets.from_instances(read_instances(golden)), progress=0.0)
    check_total_and_gradients(golden, terms, maps={"cls": cls, "rawreg": reg, "rawoff": off, "obj": obj})


def check_head(golden: GoldenFile) -> None:
    """Outputs of the whole head, and gradients with respect to features and parameters."""
    config = model_config(golden)
    features = [x.requires_grad_() for x in golden.levels("feat")]
    config.backbone.out_channels = features[0].shape[1]
    num_convs = sum(key.startswith("w:cls_convs.") and key.endswith(".gn.weight") for key in golden)
    last_dcn = "zeros" if golden.number("dcn_on_last_conv") else None
    for tower in (config.head.cls_tower, config.head.box_tower):
        tower.update(num_convs=num_convs, last_dcn=last_dcn)
    if not golden.number("refine"):
        config.head.predictors.main._target_ = BranchPredictor
        del config.head.predictors.main.refinement
    config.head.num_levels = len(features)
    head = instantiate(config.head)
    names = {key.removeprefix("w:"): _parameter_name(key.removeprefix("w:")) for key in golden if key.startswith("w:")}
    weights = {name: golden.tensor(f"w:{key}") for key, name in names.items() if name != "scales"}
    weights["scales"] = torch.stack([golden.tensor(f"w:scales.{level}.scale") for level in range(len(features))])
    head.load_state_dict(weights)

    predictions = head(features)["main"]
    total = 0
    for key, name in MAPS.items():
        ups = golden.levels(f"up_{key}")
        for level, (x, up) in enumerate(zip(predictions.maps[name], ups, strict=True)):
            golden.close_to_max(f"{key}_l{level}", x, 1e-4)
            total = total + (up * x).sum()
    total.backward()
    for level, x in enumerate(features):
        if f"grad_feat_l{level}" in golden:
            golden.close_to_max(f"grad_feat_l{level}", x.grad, 1e-4)
    parameters = dict(head.named_parameters())
    for key, name in names.items():
        if f"gw:{key}" in golden:
            grad = parameters[name].grad
            golden.close_to_max(f"gw:{key}", grad[int(key.split(".")[1])] if name == "scales" else grad, 1e-4)


def _parameter_name(key: str) -> str:
    """la_det's name of a parameter of the official head."""
    module, _, rest = key.partition(".")
    if module == "scales":
        return "scales"
    if module in LAYERS:
        return f"{LAYERS[module]}.{rest}"
    tower = {"cls_convs": "cls_tower", "reg_convs": "box_tower"}[module]
    k, layer, parameter = rest.split(".", 2)
    index = 3 * int(k) + {"conv": 0, "gn": 1}[layer]
    return f"{tower}.{index}.{parameter.replace('conv_offset', 'offset')}"
