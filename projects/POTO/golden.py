"""Golden files of the DeFCN family: FCOS, one-to-one rules, POTO, 3DMF, Aux."""

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.geometry import centerness
from la_det.modeling.criteria import reduce_losses
from la_det.modeling.heads import BranchPredictor, FilteredPredictor
from la_det.modeling.inference import to_instances
from la_det.references.scene import dense_matches
from la_det.structures import AnchorGenerator, DensePredictions, Targets
from la_det.testing.golden import GoldenFile, compare_detections, read_targets

# Which config trains and tests each variant of the official code.
CONFIGS = {
    "fcosctr": "FCOS/fcos_r50_fpn_3x_ms_coco",
    "fcos": "FCOS/fcos_wo_ctrness_r50_fpn_3x_ms_coco",
    "poto": "POTO/poto_r50_fpn_3x_ms_coco",
    "argmax": "POTO/poto_argmax_r50_fpn_3x_ms_coco",
    "anchor": "POTO/anchor_r50_fpn_3x_ms_coco",
    "center": "POTO/center_r50_fpn_3x_ms_coco",
    "loss": "POTO/loss_r50_fpn_3x_ms_coco",
    "mf": "POTO/poto_3dmf_r50_fpn_3x_ms_coco",
    "mfaux": "POTO/poto_3dmf_aux_r50_fpn_3x_ms_coco",
}
WITHOUT_GN = "POTO/poto_3dmf_wo_gn_r50_fpn_3x_ms_coco"
# Variants whose candidate region follows the file's `center_radius`.
RADIUS_FROM_FILE = ("poto", "argmax", "mf", "mfaux")
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "box": "boxes", "anchor": "boxes", "ctr": "quality", "filter": "filter"}
# la_det's name of each module in the files.
MODULES = {
    "cls_subnet": "cls_tower",
    "bbox_subnet": "box_tower",
    "cls_score": "predictors.main.logits",
    "bbox_pred": "predictors.main.boxes",
    "centerness": "predictors.main.quality",
    "max3d": "predictors.main.max_filtering",
    "filter": "predictors.main.filter",
}


def check(golden: GoldenFile) -> None:
    """Checks every variant of a file."""
    for variant in golden.variants("total"):
        if variant in CONFIGS:
            check_losses(golden, variant)
    for variant in golden.variants("boxes_0"):
        if variant in CONFIGS:
            check_inference(golden, variant)
    for variant in golden.variants("y_l0"):
        check_max_filtering(golden, variant)
    for variant in golden.variants("x_l0"):
        check_head(golden, variant)
    golden.ignore(*(f"{name}_l{level}" for name in MAPS for level in range(5)))  # a file may have more than is used
    golden.ignore("center_radius", "num_classes", "padded_size", "strides", "image_sizes")


def model_config(golden: GoldenFile, variant: str) -> DictConfig:
    """The `model` node of the variant's config, with the file's number of classes."""
    config = model_zoo.get_config(CONFIGS[variant]).model
    config.num_classes = golden.number("num_classes")
    return config


def map_names(predictor: BranchPredictor) -> list[str]:
    """The files' names of the maps that a predictor gives."""
    names = ["cls", "anchor" if isinstance(predictor.priors, AnchorGenerator) else "box"]
    names += ["ctr"] if predictor.quality else []
    return names + (["filter"] if isinstance(predictor, FilteredPredictor) else [])


def read_predictions(golden: GoldenFile, config: DictConfig) -> DensePredictions:
    """The maps the variant uses, as leaves that collect gradients."""
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    predictor = instantiate(config.head.predictors.main)
    maps = {MAPS[name]: [x.requires_grad_() for x in golden.levels(name)] for name in map_names(predictor)}
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], golden.device)
    return DensePredictions(priors, predictor.codec, maps)


def check_losses(golden: GoldenFile, variant: str) -> None:
    """Assignment, losses and gradients of one variant."""
    config = model_config(golden, variant)
    if variant in RADIUS_FROM_FILE:
        config.criteria[0].matcher.center_radius = golden.number("center_radius")
    predictions, targets = read_predictions(golden, config), read_targets(golden)
    losses = {}
    for criterion in instantiate(config.criteria):
        decision = criterion.assign(predictions, targets, progress=0.0)
        seen, assignment = decision.targets, decision.assignment
        prefix = "aux_" if "loss_cls_aux" in criterion.losses else ""
        golden.exact(f"{variant}.{prefix}matched", _matched_within_image(assignment, seen, predictions))
        golden.exact(f"{variant}.{prefix}num_pos", len(assignment.pairs))
        if variant == "fcosctr":
            check_centerness(golden, predictions, seen, assignment)
        losses |= criterion(predictions, targets, progress=0.0)
    check_total_and_gradients(golden, variant, losses, predictions)


def check_total_and_gradients(golden: GoldenFile, variant: str, terms: dict, predictions: DensePredictions) -> None:
    """Each loss, their sum, and its gradient with respect to every map."""
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(f"{variant}.{name}", loss, rtol=1e-4)
    total = sum(losses.values())
    golden.close(f"{variant}.total", total, rtol=1e-4)
    total.backward()
    for name in ("cls", "box", "anchor", "ctr", "filter"):
        for level in range(len(predictions.priors.grid_sizes)):
            key = f"{variant}.grad_{name}_l{level}"
            if key in golden:
                golden.close_to_max(key, predictions.maps[MAPS[name]][level].grad, 1e-4)


def check_centerness(golden: GoldenFile, predictions: DensePredictions, targets: Targets, assignment) -> None:
    """The centerness target of every positive location."""
    pairs = assignment.pairs
    dense = torch.zeros(targets.num_images, len(predictions.priors))
    dense[pairs.image, pairs.prior] = centerness(predictions.priors.points[pairs.prior], targets.boxes[pairs.gt])
    golden.close("fcosctr.gt_centerness", dense, atol=1e-5)


def _matched_within_image(assignment, targets: Targets, predictions: DensePredictions) -> Tensor:
    """Index of the matched ground truth within its image, -1 for background: [N, R]."""
    matched = dense_matches(assignment, targets.num_images, len(predictions.priors))
    counts = torch.tensor(targets.counts)
    first = (counts.cumsum(0) - counts).unsqueeze(-1)
    return torch.where(matched >= 0, matched - first, -1)


def check_inference(golden: GoldenFile, variant: str) -> None:
    """Detections in the network input and after rescaling to the original image."""
    config = model_config(golden, variant)
    config.inference.score_threshold = golden.number("score_thresh")
    config.inference.candidates.topk = golden.number("topk_candidates")
    config.inference.max_detections = golden.number("max_detections")
    predictions = read_predictions(golden, config)
    image_sizes, output_sizes = golden.array("image_sizes").tolist(), golden.array("output_sizes").tolist()
    detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
    finals = to_instances(detections, image_sizes, output_sizes)
    for i, final in enumerate(finals):
        keep = detections.valid[i]
        raw = (detections.boxes[i, keep], detections.scores[i, keep], detections.classes[i, keep])
        _compare(golden, f"{variant}.", i, *raw)
        _compare(golden, f"{variant}.out_", i, final.pred_boxes.tensor, final.scores, final.pred_classes)
        golden.ignore(f"gt_boxes_{i}", f"gt_classes_{i}")


def _compare(golden: GoldenFile, prefix: str, i: int, boxes: Tensor, scores: Tensor, classes: Tensor) -> None:
    keys = (f"{prefix}boxes_{i}", f"{prefix}scores_{i}", f"{prefix}classes_{i}")
    compare_detections(golden, keys, boxes, scores, classes, box_atol=1e-2, score_atol=1e-5)


def check_max_filtering(golden: GoldenFile, variant: str) -> None:
    """Outputs of the 3DMF module and gradients of their sum with given weights; variant "gn" or "nogn"."""
    config = model_zoo.get_config(CONFIGS["mf"] if variant == "gn" else WITHOUT_GN).model
    inputs = [x.requires_grad_() for x in golden.levels("x")]
    config.backbone.out_channels = inputs[0].shape[1]
    layer = instantiate(config.head.predictors.main.max_filtering)
    layer.load_state_dict({name: golden.tensor(f"w.{name}") for name in layer.state_dict()})
    outputs = layer(inputs)
    sum((y * weight).sum() for y, weight in zip(outputs, golden.levels("cot"), strict=True)).backward()
    for level, (x, y) in enumerate(zip(inputs, outputs, strict=True)):
        golden.close(f"{variant}.y_l{level}", y, atol=1e-4)
        golden.close_to_max(f"{variant}.grad_x_l{level}", x.grad, 1e-4)
    golden.close_to_max(f"{variant}.grad_conv_bias", layer.conv.bias.grad, 1e-4)
    golden.close_to_max(f"{variant}.grad_conv_weight_sum", layer.conv.weight.grad.sum((2, 3)), 1e-4)


def check_head(golden: GoldenFile, variant: str) -> None:
    """Maps of a whole head; which one it is follows from the names of its weights."""
    prefix = f"{variant}.w."
    weights = {key.removeprefix(prefix): golden.tensor(key) for key in golden if key.startswith(prefix)}
    if "max3d.conv.weight" in weights:
        name = CONFIGS["mf"] if "max3d.norm.weight" in weights else WITHOUT_GN
    elif "scales.0.scale" not in weights:
        name = CONFIGS["anchor"]
    else:
        name = CONFIGS["fcosctr"] if "centerness.weight" in weights else CONFIGS["poto"]
    config = model_zoo.get_config(name).model
    config.num_classes, config.backbone.out_channels = weights["cls_score.weight"].shape[:2]
    for tower, module in ((config.head.cls_tower, "cls_subnet"), (config.head.box_tower, "bbox_subnet")):
        tower.num_convs = sum(key.startswith(module) and value.dim() == 4 for key, value in weights.items())
    head = instantiate(config.head)
    head.load_state_dict(_renamed(weights))
    maps = head(golden.levels(f"{variant}.x"))["main"].maps
    for name in map_names(head.predictors["main"]):
        for level, x in enumerate(maps[MAPS[name]]):
            key = f"{variant}.{name}_l{level}"
            if name == "box":
                golden.close_to_max(key, x, 1e-5)
            else:
                golden.close(key, x, atol=1e-4)


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a head under la_det's names."""
    scales = [value for key, value in weights.items() if key.startswith("scales.")]
    renamed = {"scales": torch.cat(scales)} if scales else {}
    for key, value in weights.items():
        module, _, rest = key.partition(".")
        if module != "scales":
            renamed[f"{MODULES[module]}.{rest}"] = value
    return renamed
