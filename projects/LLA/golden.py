"""Golden files of LLA and of the FCOS and ATSS baselines of its repository."""

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.geometry import centerness, ltrb_distances
from la_det.matchers import LLA
from la_det.modeling.criteria import Criterion, reduce_losses
from la_det.references.scene import dense_matches
from la_det.structures import Assignment, DensePredictions, Pairs, Targets
from la_det.testing.golden import GoldenFile, compare_detections

# Which config a file is about, by the beginning of its name.
CONFIGS = {
    "lla": "LLA/lla_r50_fpn_30k_crowdhuman",
    "fcos": "LLA/lla_fcos_r50_fpn_30k_crowdhuman",
    "atss": "LLA/lla_atss_r50_fpn_30k_crowdhuman",
}
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "box": "boxes", "iou": "quality", "ctr": "quality"}
# la_det's name of each module in the files.
MODULES = {
    "cls_subnet": "cls_tower",
    "bbox_subnet": "box_tower",
    "cls_score": "predictors.main.logits",
    "bbox_pred": "predictors.main.boxes",
    "ious_pred": "predictors.main.quality",
    "centerness": "predictors.main.quality",
}


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if "feat_l0" in golden:
        check_head(golden)
    else:
        check_losses(golden)
        check_inference(golden)
        golden.ignore("image_sizes")
    golden.ignore("strides", "num_classes", "feature_sizes")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node of the file's config."""
    config = model_zoo.get_config(CONFIGS[golden.name.split("_")[0]]).model
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    return config


def quality_name(golden: GoldenFile) -> str:
    """The file's name of the quality branch."""
    return "ctr" if "ctr_l0" in golden else "iou"


def read_predictions(golden: GoldenFile, config: DictConfig) -> DensePredictions:
    """The maps, as leaves that collect gradients."""
    config.num_classes = golden.number("num_classes")
    predictor = instantiate(config.head.predictors.main)
    names = ("cls", "box", quality_name(golden))
    maps = {MAPS[name]: [x.requires_grad_() for x in golden.levels(name)] for name in names}
    priors = predictor.priors(golden.array("feature_sizes").tolist(), golden.device)
    return DensePredictions(priors, predictor.codec, maps)


def read_targets(golden: GoldenFile) -> Targets:
    """The ground truths of all images; class -1 is an ignored one."""
    instances = []
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        classes = golden.tensor(f"gt_classes_{i}")
        fields = {"gt_boxes": Boxes(golden.tensor(f"gt_boxes_{i}")), "gt_classes": classes.clamp(min=0)}
        instances.append(Instances(tuple(size), **fields, ignored=classes < 0))
    return Targets.from_instances(instances)


def check_losses(golden: GoldenFile) -> None:
    """Assignment, its costs or targets, losses and gradients."""
    config = model_config(golden)
    predictions, targets = read_predictions(golden, config), read_targets(golden)
    (criterion,) = instantiate(config.criteria)
    decision = criterion.assign(predictions, targets, progress=0.0)
    assignment = decision.assignment
    check_assignment(golden, criterion, predictions, targets, assignment)
    if isinstance(criterion.matcher, LLA):
        check_costs(golden, criterion, predictions, targets)
    else:
        check_targets(golden, predictions, targets, assignment)

    losses = reduce_losses(criterion(predictions, targets, progress=0.0))
    for name, loss in losses.items():
        golden.close(name, loss, rtol=1e-5)
    sum(losses.values()).backward()
    for name in ("cls", "box", quality_name(golden)):
        # The tolerance is relative to the largest entry of all levels.
        keys = [f"grad_{name}_l{level}" for level in range(len(predictions.priors.grid_sizes))]
        largest = max(golden.tensor(key).abs().max() for key in keys)
        for key, leaf in zip(keys, predictions.maps[MAPS[name]], strict=True):
            golden.close(key, leaf.grad, atol=1e-5 * largest)


def check_assignment(
    golden: GoldenFile, criterion: Criterion, predictions: DensePredictions, targets: Targets, assignment: Assignment
) -> None:
    """Ground truth and label of every location, and the numbers of positives."""
    num_priors = len(predictions.priors)
    everything = criterion.matcher(predictions.detach(), targets, score=criterion.score, progress=0.0)
    matched = dense_matches(everything, targets.num_images, num_priors)
    labels = torch.full_like(matched, predictions.num_classes)
    labels[assignment.pairs.image, assignment.pairs.prior] = targets.classes[assignment.pairs.gt]
    if assignment.dropped is not None:
        labels[assignment.dropped] = -1
    first = 0
    for i, count in enumerate(targets.counts):
        golden.exact(f"assigned_{i}", torch.where(matched[i] >= 0, matched[i] - first, -1))
        golden.exact(f"labels_{i}", labels[i])
        first += count
    golden.exact("num_fg", assignment.num_positives)
    if isinstance(criterion.matcher, LLA):
        golden.exact("num_valid_fg", len(assignment.pairs))
        golden.exact("normaliser_forced_to_one", int(assignment.num_positives < 1))


def check_costs(golden: GoldenFile, criterion: Criterion, predictions: DensePredictions, targets: Targets) -> None:
    """The joint cost of every pair, within 1e-4 and beyond 500 within 1e-3."""
    cost = criterion.matcher.joint_cost(predictions.detach(), targets, criterion.score)
    num_priors = len(predictions.priors)
    for i in range(targets.num_images):
        gt = (targets.image == i).nonzero().squeeze(1)
        prior = torch.arange(num_priors).repeat(len(gt))
        actual = cost(Pairs(torch.full_like(prior, i), prior, gt.repeat_interleave(num_priors)))
        expected = golden.tensor(f"cost_{i}").flatten()
        error = (actual - expected).abs() / torch.where(expected > 500, 10, 1)
        golden.record(f"cost_{i}", error.max() if len(error) else 0.0, 1e-4)


def check_targets(golden: GoldenFile, predictions: DensePredictions, targets: Targets, assignment: Assignment) -> None:
    """Distances to the sides and centerness of the foreground."""
    priors, pairs = predictions.priors, assignment.pairs
    points, boxes = priors.points[pairs.prior], targets.boxes[pairs.gt]

    def dense(values: Tensor) -> Tensor:
        full = values.new_zeros(targets.num_images, len(priors), *values.shape[1:])
        full[pairs.image, pairs.prior] = values
        return full

    ltrb, quality = dense(ltrb_distances(points, boxes)), dense(centerness(points, boxes))
    for i in range(targets.num_images):
        golden.close(f"reg_targets_{i}", ltrb[i], atol=1e-5)
        golden.close(f"centerness_{i}", quality[i], atol=1e-5)


def check_inference(golden: GoldenFile) -> None:
    """Detections in the network input."""
    config = model_config(golden)
    predictions = read_predictions(golden, config)
    detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
    for i, valid in enumerate(detections.valid):
        compare_detections(
            golden,
            (f"det_boxes_{i}", f"det_scores_{i}", f"det_classes_{i}"),
            detections.boxes[i, valid],
            detections.scores[i, valid],
            detections.classes[i, valid],
            box_atol=1e-2,
            score_atol=1e-5,
        )


def check_head(golden: GoldenFile) -> None:
    """Outputs of the head with the file's weights."""
    config = model_config(golden)
    weights = {key.removeprefix("w."): golden.tensor(key) for key in golden if key.startswith("w.")}
    config.num_classes = len(weights["cls_score.bias"])
    config.backbone.out_channels = weights["cls_score.weight"].shape[1]
    head = instantiate(config.head)
    features = golden.levels("feat")
    state = {"scales": torch.cat([weights.pop(f"scales.{level}.scale") for level in range(len(features))])}
    for key, weight in weights.items():
        module, _, rest = key.partition(".")
        state[f"{MODULES[module]}.{rest}"] = weight
    head.load_state_dict(state)
    maps = head(features)["main"].maps
    for name in ("cls", "box", quality_name(golden)):
        for level, x in enumerate(maps[MAPS[name]]):
            golden.close(f"{name}_l{level}", x, atol=1e-4)
