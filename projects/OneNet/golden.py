"""Golden files of OneNet: both assignment rules on the FCOS and the RetinaNet head, the heads, inference."""

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.modeling.criteria import Criterion, LossTerm, reduce_losses
from la_det.modeling.inference import Candidates, to_instances
from la_det.structures import Assignment, DensePredictions, Targets
from la_det.testing.golden import (
    GoldenFile,
    NotBuilt,
    compare_detections,
    read_predictions,
    read_targets,
    terms_of_process,
)

# Which model a file is of, by the beginning of its name, and which one a rule.
MODELS = {"fcos": "common/models/onenet_fcos", "retina": "common/models/onenet_retinanet"}
MINIMUM = "common/models/onenet_min"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "ltrb": "boxes", "delta": "boxes"}
# la_det's name of each module in the files.
MODULES = {
    "cls_conv_module": "cls_tower",
    "reg_conv_module": "box_tower",
    "cls_score": "predictors.main.logits",
    "ltrb_pred": "predictors.main.boxes",
    "bbox_pred": "predictors.main.boxes",
}


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if golden.name.startswith("centernet"):
        raise NotBuilt("OneNet's CenterNet-like head")
    if "feat_l0" in golden:
        check_head(golden)
    else:
        for variant in golden.variants("total"):
            check_losses(golden, variant)
        check_inference(golden)
    golden.ignore("strides", "image_sizes", "padded_size", "num_classes")


def model_config(golden: GoldenFile, variant: str = "hungarian") -> DictConfig:
    """The `model` node of the file's head and of a rule, with the file's classes and strides."""
    kind = "retina" if "delta_l0" in golden or "w.bbox_pred.bias" in golden else "fcos"
    config = model_zoo.get_config(MODELS[kind]).model
    if variant == "min":
        config.criteria[0].matcher = model_zoo.get_config(MINIMUM).model.criteria[0].matcher
    if "num_classes" in golden:
        config.num_classes = golden.number("num_classes")
    if "strides" in golden:
        config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    return config


def read_case(golden: GoldenFile, variant: str) -> tuple[Criterion, DensePredictions, Targets]:
    """Criterion, maps (leaves that collect gradients) and ground truths."""
    config = model_config(golden, variant)
    (criterion,) = instantiate(config.criteria)
    predictions = read_predictions(golden, config.head.predictors.main, MAPS)
    return criterion, predictions, read_targets(golden)


def check_losses(golden: GoldenFile, variant: str) -> None:
    """Costs, assignment, losses and gradients by one rule."""
    criterion, predictions, targets = read_case(golden, variant)

    def terms_of(other: GoldenFile) -> dict[str, LossTerm]:
        c, p, t = read_case(other, variant)
        return c(p, t, progress=0.0)

    check_assignment(golden, variant, predictions, targets, criterion)
    terms = terms_of_process(golden, criterion(predictions, targets, progress=0.0), terms_of)
    golden.close(f"{variant}.avg_factor", terms["loss_ce"].normaliser.clamp(min=1), rtol=1e-5)
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(f"{variant}.{name}", loss, rtol=1e-5)
    golden.close(f"{variant}.total", sum(losses.values()), rtol=1e-5)
    sum(losses.values()).backward()
    for key, name in MAPS.items():
        if f"{key}_l0" in golden:
            for level, leaf in enumerate(predictions.maps[name]):
                golden.close_to_max(f"{variant}.grad_{key}_l{level}", leaf.grad, 1e-4)


def check_assignment(
    golden: GoldenFile, variant: str, predictions: DensePredictions, targets: Targets, criterion: Criterion
) -> None:
    """The prior of each ground truth and the label of each prior, and the cost matrix where the file has it."""
    assignment = criterion.assign(predictions, targets, progress=0.0).assignment
    priors = torch.full_like(targets.image, -1).index_copy_(0, assignment.pairs.gt, assignment.pairs.prior)
    costs = criterion.matcher.cost(predictions.detach(), targets, criterion.score).dense()
    for i in range(targets.num_images):
        here = targets.image == i
        expected = golden.tensor(f"{variant}.prior_{i}")
        actual = exchange_equals(priors[here], expected, targets.boxes[here], targets.classes[here])
        golden.exact(f"{variant}.prior_{i}", actual if variant == "hungarian" else priors[here])
        if f"cost_{i}" in golden:
            cost = golden.tensor(f"cost_{i}")
            error = (costs[here] - cost).abs() / (1 + cost.abs())
            golden.record(f"cost_{i}", error.max() if error.numel() else 0.0, 1e-4)
    golden.exact(f"{variant}.label", labels(assignment, predictions, targets))


def exchange_equals(actual: Tensor, expected: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
    """The actual priors [G], in the expected order where ground truths equal in box and class may exchange theirs."""
    actual, key = actual.clone(), torch.cat([boxes, classes.unsqueeze(1)], 1)
    for row in key.unique(dim=0):
        group = (key == row).all(1).nonzero().squeeze(1)
        if torch.equal(actual[group].sort().values, expected[group].sort().values):
            actual[group] = expected[group]
    return actual


def labels(assignment: Assignment, predictions: DensePredictions, targets: Targets) -> Tensor:
    """[N, R] class, or K for background."""
    pairs, num_priors = assignment.pairs, len(predictions.priors)
    if assignment.classifies is not None:
        pairs = pairs[assignment.classifies]
    dense = torch.full((targets.num_images, num_priors), predictions.num_classes)
    dense[pairs.image, pairs.prior] = targets.classes[pairs.gt]
    return dense


def check_inference(golden: GoldenFile) -> None:
    """Detections: 100, 10, and 100 of which NMS leaves some (the authors' ablation); 100 in the original image."""
    if "det_boxes_0" not in golden:
        return
    _, predictions, _ = read_case(golden, "hungarian")
    sizes = golden.tensor("image_sizes")
    config = model_config(golden).inference
    rule = instantiate(config)
    golden.exact("max_detections", rule.max_detections)
    found = rule(predictions, sizes)
    compare(golden, "det", found)
    compare(golden, "detnms", rule.select(found, 0.5))
    config.max_detections = 10
    compare(golden, "detsmall", instantiate(config)(predictions, sizes))
    for i, final in enumerate(to_instances(found, sizes.tolist(), golden.array("output_sizes").tolist())):
        keys = tuple(f"out_{name}_{i}" for name in ("boxes", "scores", "classes"))
        fields = final.pred_boxes.tensor, final.scores, final.pred_classes
        compare_detections(golden, keys, *fields, box_atol=1e-2, score_atol=1e-5)


def compare(golden: GoldenFile, prefix: str, found: Candidates) -> None:
    """Detections of all images in the network input."""
    for i, valid in enumerate(found.valid):
        keys = tuple(f"{prefix}_{name}_{i}" for name in ("boxes", "scores", "classes"))
        fields = found.boxes[i, valid], found.scores[i, valid], found.classes[i, valid]
        compare_detections(golden, keys, *fields, box_atol=1e-2, score_atol=1e-5)


def check_head(golden: GoldenFile) -> None:
    """Outputs of a head with the file's weights, its priors, and gradients."""
    config = model_config(golden)
    weights = {key.removeprefix("w."): golden.tensor(key) for key in golden if key.startswith("w.")}
    features = [x.requires_grad_() for x in golden.levels("feat")]
    retina = "bbox_pred.bias" in weights
    config.num_classes = len(weights["cls_score.bias"]) // (9 if retina else 1)
    config.backbone.out_channels = features[0].shape[1]
    num_convs = sum(x.ndim == 4 for key, x in weights.items() if key.startswith("cls_conv_module."))
    config.head.cls_tower.num_convs = config.head.box_tower.num_convs = num_convs
    head = instantiate(config.head)
    state, names = {}, {}
    if not retina:
        state["scales"] = torch.cat([weights.pop(f"scales.{level}.scale").view(1) for level in range(len(features))])
    for key, weight in weights.items():
        module, _, rest = key.partition(".")
        names[key] = f"{MODULES[module]}.{rest}"
        state[names[key]] = weight
    head.load_state_dict(state)
    predictions = head(features)["main"]
    priors = predictions.priors
    golden.close("priors", priors.boxes if retina else priors.points, atol=1e-3)
    total = torch.zeros(())
    for key in ("cls", "delta" if retina else "ltrb"):
        for level, x in enumerate(predictions.maps[MAPS[key]]):
            golden.close_to_max(f"{key}_l{level}", x, 1e-4)
            total = total + (golden.tensor(f"up_{key}_l{level}") * x).sum()
    total.backward()
    parameters = dict(head.named_parameters())
    for key in golden:
        if key.startswith("grad_feat_l"):
            golden.close_to_max(key, features[int(key[-1])].grad, 1e-4)
        elif key.startswith("gw.scales."):
            golden.close_to_max(key, head.scales.grad[int(key.split(".")[2])].view(golden.array(key).shape), 1e-4)
        elif key.startswith("gw."):
            golden.close_to_max(key, parameters[names[key.removeprefix("gw.")]].grad, 1e-4)
