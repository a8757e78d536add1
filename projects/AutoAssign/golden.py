"""Golden files of AutoAssign: weights, losses and gradients, inference, the head."""

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.geometry import aligned_giou
from la_det.matchers.autoassign import joint_confidence
from la_det.modeling.criteria import LossTerm, reduce_losses
from la_det.modeling.criteria.autoassign import bag_confidences
from la_det.modeling.criteria.decision import Decision
from la_det.steps.candidates import largest_iou, meeting_runs
from la_det.structures import DensePredictions, Pairs
from la_det.testing.golden import GoldenFile, average_normalisers, compare_detections, read_predictions, read_targets

CONFIG = "AutoAssign/autoassign_r50_fpn_1x_coco"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "ltrb": "boxes", "obj": "quality"}
# la_det's name of what a parameter's name in the files begins with.
LAYERS = {
    "cls_subnet": "cls_tower",
    "bbox_subnet": "box_tower",
    "cls_score": "predictors.main.logits",
    "bbox_pred": "predictors.main.boxes",
    "obj_score": "predictors.main.quality",
}


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if "w/cls_score.weight" in golden:
        check_head(golden)
    elif "det_boxes_0" in golden:
        check_inference(golden)
    elif "rank0_loss_total" in golden:
        check_losses([golden.part("rank0_"), golden.part("rank1_")])
    else:
        check_losses([golden])
    golden.ignore("strides", "num_classes", "image_sizes")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node of the config, with the file's classes and strides."""
    config = model_zoo.get_config(CONFIG).model
    config.num_classes = golden.number("num_classes")
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    return config


def check_losses(processes: list[GoldenFile]) -> None:
    """Weights, losses and gradients of processes, which average two of the normalisers."""
    config, inputs = model_config(processes[0]), []
    for golden in processes:
        (criterion,) = instantiate(config.criteria)
        criterion.matcher.mu.data = golden.tensor("center_mean")
        criterion.matcher.sigma.data = golden.tensor("center_sigma")
        inputs.append((criterion, read_predictions(golden, config.head.predictors.main, MAPS), read_targets(golden)))
    of_processes = average_normalisers([criterion(*x, progress=0.0) for criterion, *x in inputs])
    for golden, (criterion, predictions, targets), terms in zip(processes, inputs, of_processes, strict=True):
        for key, name in (("pos_avg_factor", "loss_pos"), ("neg_avg_factor", "loss_neg")):
            if key in golden:
                golden.close(key, terms[name].normaliser.clamp(min=terms[name].floor), rtol=1e-5)
        check_loss_values(golden, terms).backward()
        for key, name in MAPS.items():
            for level, leaf in enumerate(predictions.maps[name]):
                golden.close_to_max(f"grad_{key}_l{level}", leaf.grad, 1e-4)
        golden.close_to_max("grad_center_mean", criterion.matcher.mu.grad, 1e-4)
        golden.close_to_max("grad_center_sigma", criterion.matcher.sigma.grad, 1e-4)
        if "inside_0" in golden:
            with torch.no_grad():
                check_weights(golden, criterion.assign(predictions, targets, progress=0.0))


def check_loss_values(golden: GoldenFile, terms: dict[str, LossTerm]) -> Tensor:
    """Each loss and their sum, which is returned."""
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(name, loss, rtol=1e-5)
    total = sum(losses.values())
    golden.close("loss_total", total, rtol=1e-5)
    return total


def check_weights(golden: GoldenFile, decision: Decision) -> None:
    """Everything that the matcher computes on the way, made dense for the comparison."""
    predictions, targets, assignment = decision.predictions, decision.targets, decision.assignment
    num_priors, pairs = len(predictions.priors), assignment.pairs

    def dense(values: Tensor) -> Tensor:
        result = torch.zeros(num_priors, len(targets))
        result[pairs.prior, pairs.gt] = values
        return result

    prior = torch.arange(num_priors).repeat_interleave(len(targets))
    gt = torch.arange(len(targets)).repeat(num_priors)
    every = Pairs(targets.image[gt], prior, gt)
    giou = aligned_giou(predictions.boxes_at(every.image, prior), targets.boxes[gt])
    per_pair = {
        "inside": dense(torch.ones(len(pairs))),
        "center_prior": dense(assignment.closeness),
        "pos_weight": dense(assignment.weight),
        "p_pos": joint_confidence(predictions, targets, every, decision.score).view(num_priors, -1),
        "giou_loss": (1 - giou).view(num_priors, -1),
    }
    boxes = predictions.boxes()
    max_iou = largest_iou(boxes, targets, meeting_runs(boxes, targets).flatten().nonzero().squeeze(1))
    n, negative = assignment.negatives, torch.ones(targets.num_images, num_priors, predictions.num_classes)
    negative[n.image, n.prior, n.cls] = n.weight
    bag = bag_confidences(decision)
    positive_loss = torch.where(bag > 0, -bag.log(), 100.0)
    start = 0
    for i, size in enumerate(targets.counts):
        of_image = slice(start, start + size)
        for name, values in per_pair.items():
            if f"{name}_{i}" in golden:
                golden.close(f"{name}_{i}", values[:, of_image], atol=1e-5)
        golden.close(f"max_iou_{i}", max_iou[i, :num_priors], atol=1e-5)
        golden.close(f"neg_weight_{i}", negative[i], atol=1e-5)
        golden.close(f"bag_prob_{i}", bag[of_image], atol=1e-5)
        golden.close(f"raw_pos_{i}", positive_loss[of_image].sum(), rtol=1e-5)
        golden.close(f"center_sum_{i}", assignment.closeness[pairs.image == i].sum(), rtol=1e-5)
        start += size


def check_inference(golden: GoldenFile) -> None:
    """Detections of the recipe, and with fewer candidates and detections."""
    config = model_config(golden)
    predictions = read_predictions(golden, config.head.predictors.main, MAPS)
    config.inference.score_threshold = golden.number("score_threshold")
    config.inference.nms_threshold = golden.number("nms_threshold")
    for kind, size in (("det", ""), ("detsmall", "small_")):
        config.inference.candidates.topk = golden.number(f"{size}topk_candidates")
        config.inference.max_detections = golden.number(f"{size}max_detections")
        detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
        for i, valid in enumerate(detections.valid):
            keys = (f"{kind}_boxes_{i}", f"{kind}_scores_{i}", f"{kind}_classes_{i}")
            actual = (detections.boxes[i, valid], detections.scores[i, valid], detections.classes[i, valid])
            compare_detections(golden, keys, *actual, box_atol=1e-2, score_atol=1e-5)
            golden.ignore(f"gt_boxes_{i}", f"gt_classes_{i}")


def check_head(golden: GoldenFile) -> None:
    """Outputs of the head with the file's weights."""
    config = model_zoo.get_config(CONFIG).model
    inputs = golden.levels("in")
    config.backbone.out_channels = inputs[0].shape[1]
    config.num_classes = len(golden.array("w/cls_score.bias"))
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    for tower in (config.head.cls_tower, config.head.box_tower):
        tower.num_convs = golden.number("num_convs")
    head = instantiate(config.head)
    scales = torch.cat([golden.tensor(f"w/scales.{level}.scale").view(1) for level in range(len(inputs))])
    weights = {"scales": scales}
    for key in golden:
        layer, _, rest = key.removeprefix("w/").partition(".")
        if layer in LAYERS:
            weights[f"{LAYERS[layer]}.{rest}"] = golden.tensor(key)
    head.load_state_dict(weights)
    with torch.no_grad():
        predictions = head(inputs)["main"]
    for key, name in MAPS.items():
        for level, x in enumerate(predictions.maps[name]):
            golden.close(f"out_{key}_l{level}", x, atol=1e-4 if name == "boxes" else 1e-5)
