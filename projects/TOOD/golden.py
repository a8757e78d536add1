"""Golden files of TOOD (losses of both phases, also in two processes, the T-head, inference) and of YOLO's TAL."""

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.modeling.criteria import LossTerm, reduce_losses
from la_det.references.scene import matched_in_image
from la_det.structures import Assignment, DensePredictions, Targets
from la_det.testing.golden import GoldenFile, compare_detections, read_targets, terms_of_process

CONFIGS = {"free": "TOOD/tood_r50_fpn_1x_coco", "based": "TOOD/tood_anchor_r50_fpn_1x_coco"}
DUAL = "DATE/tal_dual_r50_fpn_12ep_coco"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "align": "quality", "box": "boxes"}
# la_det's name of each module of the head in the files.
MODULES = {
    "cls_decomp": "cls_decomposition",
    "reg_decomp": "box_decomposition",
    "la_conv1": "attention.0",
    "la_conv2": "attention.2",
    "tood_cls": "logits",
    "tood_reg": "boxes",
    "cls_prob_conv1": "quality.0",
    "cls_prob_conv2": "quality.2",
    "reg_offset_conv1": "offset.0",
    "reg_offset_conv2": "offset.2",
    "reduction_conv.conv": "reduction",
    "reduction_conv.gn": "norm",
}


def check(golden: GoldenFile) -> None:
    """Checks whatever a file holds."""
    if "stacked_convs" in golden:
        check_head(golden)
    elif "det_boxes_0" in golden:
        check_inference(golden)
    elif "o2m.topk" in golden:
        check_dual(golden)
    else:
        for phase, progress in (("atss", 0.0), ("tal", 1.0)):
            check_phase(golden, phase, progress)
        check_valid(golden)
    golden.ignore("strides", "image_sizes", "pad_sizes", "padded_size", "num_classes")


def model_config(golden: GoldenFile, name: str) -> DictConfig:
    """The `model` node of a config, with the file's classes and strides."""
    config = model_zoo.get_config(name).model
    config.num_classes = golden.number("num_classes")
    for name, predictor in config.head.predictors.items():
        if name != "_target_":
            predictor.priors.strides = golden.array("strides").tolist()
    return config


def read_predictions(config: DictConfig, branch: str, maps: dict[str, list[Tensor]]) -> DensePredictions:
    """A branch's predictions with the file's maps."""
    predictor = instantiate(config.head.predictors[branch])
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], maps["logits"][0].device)
    return DensePredictions(priors, predictor.codec, maps)


def read_maps(golden: GoldenFile) -> tuple[DictConfig, dict[str, list[Tensor]], DensePredictions]:
    """Of a file of TOOD: config, maps by their keys, and predictions."""
    config = model_config(golden, CONFIGS["free"])
    leaves = {key: [x.requires_grad_() for x in golden.levels(key)] for key in MAPS}
    predictions = read_predictions(config, "main", {MAPS[key]: levels for key, levels in leaves.items()})
    return config, leaves, predictions


def check_phase(golden: GoldenFile, phase: str, progress: float) -> None:
    """Assignment, soft targets, normalisers, losses and gradients at a progress of the training."""
    (config, leaves, predictions), targets = read_maps(golden), read_targets(golden)
    (criterion,) = instantiate(config.criteria)
    assignment = criterion.assign(predictions, targets, progress).assignment
    golden.exact(f"{phase}.assign_gt", matched_in_image(assignment, targets, len(predictions.priors)))
    if assignment.target is not None:
        golden.close(f"{phase}.target", dense_target(assignment, targets, predictions), atol=1e-5)
    terms = criterion(predictions, targets, progress)
    for key, name in (("cls", "loss_cls"), ("box", "loss_bbox")):
        if f"{phase}.local_{key}_factor" in golden:
            golden.close(f"{phase}.local_{key}_factor", terms[name].normaliser, rtol=1e-5)
    terms = terms_of_process(golden, terms, lambda other: terms_of(other, progress))
    losses = reduce_losses(terms)
    for key, name in (("cls", "loss_cls"), ("box", "loss_bbox")):
        golden.close(f"{phase}.{key}_avg_factor", terms[name].normaliser, rtol=1e-5)
        golden.close(f"{phase}.loss_{key}", losses[name], rtol=1e-5)
    total = sum(losses.values())
    golden.close(f"{phase}.total", total, rtol=1e-5)
    check_gradients(golden, phase, total, leaves)


def terms_of(golden: GoldenFile, progress: float) -> dict[str, LossTerm]:
    """Loss terms of a file before averaging over processes."""
    config, _, predictions = read_maps(golden)
    (criterion,) = instantiate(config.criteria)
    return criterion(predictions, read_targets(golden), progress)


def check_gradients(golden: GoldenFile, prefix: str, total: Tensor, leaves: dict[str, list[Tensor]]) -> None:
    """Of a total with respect to the file's maps."""
    grads = iter(torch.autograd.grad(total, sum(leaves.values(), []), retain_graph=True))
    for key, levels in leaves.items():
        for level in range(len(levels)):
            golden.close_to_max(f"{prefix}.grad_{key}_l{level}", next(grads), 1e-4)


def check_valid(golden: GoldenFile) -> None:
    """Which locations take part: those that ATSS does not drop."""
    (config, _, predictions), targets = read_maps(golden), read_targets(golden)
    (criterion,) = instantiate(config.criteria)
    valid = torch.ones(targets.num_images, len(predictions.priors), dtype=torch.bool)
    dropped = criterion.assign(predictions, targets, progress=0.0).assignment.dropped
    if dropped is not None:
        valid[dropped] = False
    golden.exact("valid", valid)


def dense_target(assignment: Assignment, targets: Targets, predictions: DensePredictions) -> Tensor:
    """Soft targets [N, R], 0 for background."""
    dense = torch.zeros(targets.num_images, len(predictions.priors))
    dense[assignment.pairs.image, assignment.pairs.prior] = assignment.target
    return dense


def check_inference(golden: GoldenFile) -> None:
    """Detections of the recipe, and with fewer locations and detections."""
    config, _, predictions = read_maps(golden)
    for prefix, topk, max_detections in (("det", 1000, 100), ("detsmall", 20, 60)):
        config.inference.candidates.topk, config.inference.max_detections = topk, max_detections
        detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
        for i in range(predictions.num_images):
            keep = detections.valid[i]
            keys = (f"{prefix}_boxes_{i}", f"{prefix}_scores_{i}", f"{prefix}_classes_{i}")
            actual = (detections.boxes[i, keep], detections.scores[i, keep], detections.classes[i, keep])
            compare_detections(golden, keys, *actual, box_atol=1e-2, score_atol=1e-5)


def check_head(golden: GoldenFile) -> None:
    """Outputs of the whole head, and gradients with respect to features and parameters, of each kind of boxes."""
    for kind, name in CONFIGS.items():
        if f"{kind}.cls_l0" not in golden:
            continue
        config = model_config(golden, name)
        features = [x.requires_grad_() for x in golden.levels("feat")]
        config.backbone.out_channels = features[0].shape[1]
        config.head.num_levels = len(features)
        num_dcn = golden.number("num_dcn") if "num_dcn" in golden else 0
        config.head.predictors.main.update(num_convs=golden.number("stacked_convs"), num_dcn=num_dcn)
        head = instantiate(config.head)
        names = {key.removeprefix("w:"): parameter_name(key.removeprefix("w:")) for key in golden if key[:2] == "w:"}
        weights = {ours: golden.tensor(f"w:{key}") for key, ours in names.items() if ours != "scales"}
        weights["scales"] = torch.stack([golden.tensor(f"w:scales.{i}.scale") for i in range(len(features))])
        head.load_state_dict(weights)
        check_outputs(golden, kind, head, features, names, config)


def check_outputs(golden, kind, head, features, names, config) -> None:
    """What a head makes of the features of a file."""
    coarse, predictor = [], head.predictors["main"]
    refine = predictor.refine
    predictor.refine = lambda boxes, offset: refine(coarse.append(boxes) or boxes, offset)
    predictions = head(features)["main"]
    score = instantiate(config.criteria[0].score)
    total = torch.zeros(())
    for level in range(len(features)):
        for key, name in MAPS.items():
            golden.close_to_max(f"{kind}.{key}_l{level}", predictions.maps[name][level], 1e-4)
        golden.close_to_max(f"{kind}.coarse_l{level}", coarse[level], 1e-4)
        p = score.dense(predictions, level).squeeze(1)
        golden.close_to_max(f"{kind}.prob_l{level}", p, 1e-4)
        total = total + (golden.tensor(f"up_prob_l{level}") * p).sum()
        total = total + (golden.tensor(f"up_box_l{level}") * predictions.maps["boxes"][level]).sum()
    total.backward()
    for level, x in enumerate(features):
        if f"{kind}.grad_feat_l{level}" in golden:
            golden.close_to_max(f"{kind}.grad_feat_l{level}", x.grad, 1e-4)
    parameters = dict(head.named_parameters())
    for key, name in names.items():
        if f"{kind}.gw:{key}" in golden:
            grad = parameters[name].grad
            golden.close_to_max(f"{kind}.gw:{key}", grad[int(key.split(".")[1])] if name == "scales" else grad, 1e-4)


def parameter_name(key: str) -> str:
    """la_det's name of a parameter of the official head."""
    if key.startswith("scales."):
        return "scales"
    if key.startswith("inter_convs."):
        _, k, layer, rest = key.split(".", 3)
        key = f"tower.{3 * int(k) + {'conv': 0, 'gn': 1}[layer]}.{rest.replace('conv_offset', 'offset')}"
    for theirs, ours in MODULES.items():
        key = key.replace(theirs, ours)
    return f"predictors.main.{key}"


def check_dual(golden: GoldenFile) -> None:
    """Both branches of a consistent dual assignment."""
    config = model_config(golden, DUAL)
    targets, totals = read_targets(golden), []
    for criterion in instantiate(config.criteria):
        prefix, letter = {"one_to_one": ("o2o", "o2o"), "one_to_many": ("o2m", "o2m")}[criterion.branch]
        leaves = {key: [x.requires_grad_() for x in golden.levels(f"{prefix}.{key}")] for key in ("cls", "ltrb")}
        maps = {"logits": leaves["cls"], "boxes": leaves["ltrb"]}
        predictions = read_predictions(config, criterion.branch, maps)
        assignment = criterion.assign(predictions, targets, progress=0.0).assignment
        golden.exact(f"{prefix}.topk", criterion.matcher.topk)
        golden.exact(f"{prefix}.assign_gt", matched_in_image(assignment, targets, len(predictions.priors)))
        golden.close(f"{prefix}.target", dense_target(assignment, targets, predictions), atol=1e-5)
        terms = criterion(predictions, targets, progress=0.0)
        losses, total = reduce_losses(terms), 0
        for key, kind in (("cls", "cls"), ("box", "ciou")):
            name = f"loss_{letter}_{kind}"
            golden.close(f"{prefix}.target_sum", terms[name].normaliser, rtol=1e-5)
            golden.close(f"gain_{key}", terms[name].weight, rtol=1e-7)
            golden.close(f"{prefix}.loss_{key}", losses[name] / terms[name].weight, rtol=1e-5)
            total = total + losses[name]
        golden.close(f"{prefix}.total", total, rtol=1e-5)
        check_gradients(golden, prefix, total, leaves)
        totals.append(total)
    golden.close("total", sum(totals), rtol=1e-5)
