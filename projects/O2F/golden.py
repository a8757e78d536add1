"""Golden files of o2f and o2f-CondInst: assignment and losses, mask head, heads, inference, CrowdHuman's metric."""

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.geometry import ltrb_distances
from la_det.modeling.criteria import reduce_losses
from la_det.modeling.criteria.masks import dice_loss, dice_of_pairs, semantic_targets
from la_det.modeling.heads.dynamic_mask_head import mask_head_input, mask_logits, split_parameters
from la_det.modeling.inference import Candidates
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear
from la_det.modeling.mask_inference import paste_masks
from la_det.references.scene import dense_matches
from la_det.structures import Assignment, DensePredictions, PointGenerator, Targets
from la_det.testing.golden import GoldenFile, compare_detections
from la_det.testing.golden_crowdhuman import check_o2f as check_crowdhuman_metric

DETECTOR, CONDINST = "O2F/o2f_r50_fpn_1x_coco", "O2F/o2f_condinst_r50_fpn_1x_coco"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "box": "boxes", "ctr": "quality", "top": "controller"}
IMAGE_MAPS = {"mask_feat": "mask_features", "sem_logits": "semantic"}
# la_det's name of each layer in the files; of towers the layers' numbers follow.
LAYERS = {
    "conv_cls": "predictors.main.logits",
    "conv_reg": "predictors.main.boxes",
    "conv_centerness": "predictors.main.quality",
    "conv_quality": "predictors.main.quality",
    "controller": "predictors.main.controller",
    "refine": "image_branches.mask_features.refine",
    "seg_head": "image_branches.semantic",
    "seg_out": "image_branches.semantic.6",
}
TOWERS = {
    "cls_convs": "cls_tower",
    "reg_convs": "box_tower",
    "centerness_convs": "predictors.main.quality_tower",
    "mask_tower": "image_branches.mask_features.tower",
}


def check(golden: GoldenFile) -> None:
    """Checks whatever a file holds."""
    if "AP" in golden:
        check_crowdhuman_metric(golden)
    elif "params" in golden:
        check_mask_head(golden)
    elif "feat_l0" in golden:
        check_head(golden)
    elif "epochs" in golden:
        check_losses(golden)
    else:
        check_inference(golden)


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node of the detector's or CondInst's config, whichever the file is of, with its strides."""
    config = model_zoo.get_config(CONDINST if any("top_l0" in key for key in golden) else DETECTOR).model
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    return config


def read_predictions(golden: GoldenFile, config: DictConfig) -> DensePredictions:
    """The file's maps, as leaves that collect gradients."""
    maps = {name: golden.levels(key) for key, name in MAPS.items() if f"{key}_l0" in golden}
    image_maps = {name: golden.tensor(key) for key, name in IMAGE_MAPS.items() if key in golden}
    for x in [*sum(maps.values(), []), *image_maps.values()]:
        x.requires_grad_()
    predictor = instantiate(config.head.predictors.main)
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], golden.device)
    return DensePredictions(priors, predictor.codec, maps, image_maps)


def read_targets(golden: GoldenFile) -> Targets:
    """The ground truths of all images."""
    instances = []
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        fields = {"gt_boxes": Boxes(golden.tensor(f"gt_boxes_{i}")), "gt_classes": golden.tensor(f"gt_classes_{i}")}
        if "top_l0" in golden:
            no_masks = torch.zeros(0, *size)  # an image without ground truth may lack them
            fields["gt_masks"] = BitMasks(golden.tensor(f"gt_masks_{i}") if f"gt_masks_{i}" in golden else no_masks)
        instances.append(Instances(tuple(size), **fields))
    return Targets.from_instances(instances)


def check_losses(golden: GoldenFile) -> None:
    """Assignment, losses and gradients of every epoch in the file."""
    config = model_config(golden)
    golden.ignore("num_classes", "loss_bbox_unpatched")  # the latter is a fault of the original
    num_epochs = golden.number("max_epoch")
    config.criteria[0].matcher.update(topk=golden.number("o2f_topk"), num_epochs=num_epochs)
    (criterion,) = instantiate(config.criteria)
    predictions, targets = read_predictions(golden, config), read_targets(golden)
    check_candidates(golden, predictions, targets, criterion)
    for epoch in golden.array("epochs").tolist():
        progress = epoch / num_epochs
        decision = criterion.assign(predictions, targets, progress)
        assignment = decision.assignment
        check_assignment(golden, predictions, targets, assignment, f"_e{epoch}")
        terms = criterion(predictions, targets, progress)
        golden.exact("num_pos", terms["loss_cls"].normaliser.clamp(min=terms["loss_cls"].floor))
        golden.close("ctr_denorm", terms["loss_bbox"].normaliser.clamp(min=terms["loss_bbox"].floor), rtol=1e-4)
        check_loss_values(golden, predictions, reduce_losses(terms), f"_e{epoch}")
        if targets.masks is not None:
            check_masks(golden, predictions, targets, assignment)


def check_candidates(golden: GoldenFile, predictions: DensePredictions, targets: Targets, criterion) -> None:
    """Candidate regions and qualities, and the centroids of masks."""
    matcher, num_priors = criterion.matcher, len(predictions.priors)
    pairs, listed = matcher.region(predictions.priors, targets)
    pairs = pairs[listed]
    _, q = matcher.matching_quality(predictions.detach(), targets, pairs, criterion.score)
    inside, quality = torch.zeros(num_priors, len(targets)), torch.zeros(num_priors, len(targets))
    inside[pairs.prior, pairs.gt] = 1
    quality[pairs.prior, pairs.gt] = q
    for i, (inside_i, quality_i) in enumerate(
        zip(inside.split(targets.counts, 1), quality.split(targets.counts, 1), strict=True)
    ):
        golden.exact(f"in_center_{i}", inside_i)
        golden.close(f"quality_{i}", quality_i, atol=1e-5)
    if targets.masks is not None:
        for i, centroids in enumerate(targets.masks.centroids.split(targets.counts)):
            if f"mask_centroid_{i}" in golden:
                golden.close(f"mask_centroid_{i}", centroids.nan_to_num(0.0), atol=1e-3)


def check_assignment(
    golden: GoldenFile, predictions: DensePredictions, targets: Targets, assignment: Assignment, epoch: str
) -> None:
    """The certain and soft locations with weights and targets, made dense for the comparison."""
    priors, pairs = predictions.priors, assignment.pairs
    matched = dense_matches(assignment, targets.num_images, len(priors))
    counts = torch.tensor(targets.counts)
    first = (counts.cumsum(0) - counts).unsqueeze(-1)
    golden.exact("matched_gt", torch.where(matched >= 0, matched - first, -1))
    classes = torch.cat([targets.classes, torch.tensor([predictions.num_classes])])
    golden.exact("labels", classes[matched])

    def dense(values: Tensor) -> Tensor:
        result = torch.zeros(*matched.shape, *values.shape[1:])
        result[pairs.image, pairs.prior] = values
        return result

    golden.close("bbox_targets", dense(ltrb_distances(priors.points[pairs.prior], targets.boxes[pairs.gt])), atol=1e-3)
    golden.exact("soft_weight", dense(assignment.weight))
    golden.close(f"soft_label{epoch}", dense(assignment.target), atol=1e-5)


def check_loss_values(golden: GoldenFile, predictions: DensePredictions, losses: dict[str, Tensor], epoch: str) -> None:
    """Each loss, and the gradient of their sum with respect to every map; some depend on the epoch."""

    def key_of(name: str) -> str:
        return f"{name}{epoch}" if f"{name}{epoch}" in golden else name

    for name, loss in losses.items():
        golden.close(key_of(name), loss, rtol=1e-4)
    inputs = {
        f"{key}_l{level}": x for key, name in MAPS.items() for level, x in enumerate(predictions.maps.get(name, []))
    }
    inputs |= {key: predictions.image_maps[name] for key, name in IMAGE_MAPS.items() if name in predictions.image_maps}
    gradients = torch.autograd.grad(sum(losses.values()), list(inputs.values()))
    for key, gradient in zip(inputs, gradients, strict=True):
        golden.close_to_max(key_of(f"grad_{key}"), gradient, 1e-3)


def check_masks(golden: GoldenFile, predictions: DensePredictions, targets: Targets, assignment: Assignment) -> None:
    """Each positive's mask loss, and the classes that the semantic branch is to predict."""
    order = assignment.pairs.location(len(predictions.priors)).argsort()  # the official code goes by location
    golden.close("dice_per_instance", dice_of_pairs(predictions, targets, assignment)[order], atol=1e-4)
    size = tuple(predictions.image_maps["semantic"].shape[-2:])
    classes = semantic_targets(targets, predictions.num_classes, predictions.priors.level_strides[0], size)
    golden.exact("sem_targets", classes)


def check_mask_head(golden: GoldenFile) -> None:
    """The dynamic mask head with its parts, dice loss and gradients, and aligned upsampling."""
    features = golden.tensor("mask_feat").unsqueeze(0).requires_grad_()
    parameters = golden.tensor("params").requires_grad_()
    size = features.shape[-2:]
    grid = PointGenerator(strides=[golden.number("mask_stride")])([size], golden.device).points
    image = torch.zeros(len(parameters), dtype=torch.int64)
    points, strides = golden.tensor("points"), golden.tensor("instance_strides")

    inputs = mask_head_input(features.flatten(2), grid, image, points, strides)
    golden.close("mask_head_input", inputs.unflatten(2, size), atol=1e-4)
    for i, (weight, bias) in enumerate(split_parameters(parameters, features.shape[1])):
        golden.exact(f"w{i}", weight)
        golden.exact(f"b{i}", bias.squeeze(-1))
    logits = mask_logits(features, grid, image, parameters, points, strides)
    golden.close("mask_logits", logits, atol=1e-4)
    dice = dice_loss(logits.sigmoid().flatten(1), golden.tensor("mask_targets").flatten(1).float())
    golden.close("dice", dice, atol=1e-4)
    loss = model_zoo.get_config(CONDINST).model.criteria[0].losses.loss_mask.weight * dice.mean()
    golden.close("loss_mask", loss, rtol=1e-4)
    loss.backward()
    golden.close_to_max("grad_params", parameters.grad, 1e-3)
    golden.close_to_max("grad_mask_feat", features.grad.squeeze(0), 1e-3)
    for factor in (2, 4):
        golden.close(f"aligned_x{factor}", aligned_bilinear(features, factor).squeeze(0), atol=1e-4)


def check_head(golden: GoldenFile) -> None:
    """Outputs of the head with the file's weights, in evaluation and, where the file has them, in training."""
    weights = {key.removeprefix("w/"): golden.tensor(key) for key in golden if key.startswith("w/")}
    features = golden.levels("feat")
    config = model_config(golden)
    config.num_classes = len(weights["conv_cls.bias"])
    config.backbone.out_channels = features[0].shape[1]
    groups = golden.number("gn_groups")
    for tower in (config.head.cls_tower, config.head.box_tower):
        tower.update(num_convs=golden.number("num_convs"), groups=groups)
    channels = len(weights["centerness_convs.0.conv.bias"])
    config.head.predictors.main.quality_tower.update(channels=channels, groups=groups)
    if "image_branches" in config.head:
        for name in IMAGE_MAPS.values():
            config.head.image_branches[name].channels = len(weights["refine.0.0.weight"])
    head = instantiate(config.head).eval()
    load_weights(head, weights)
    compare_head(golden, "eval", head(features)["main"])
    if "train_box_l0" in golden:
        compare_head(golden, "train", head.train()(features)["main"])


def load_weights(head: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads the file's weights; all but counters of batches must be there."""
    scales = [weights.pop(key) for key in list(weights) if key.startswith("scales.")]
    state = {la_det_name(key): value for key, value in weights.items()} | {"scales": torch.stack(scales)}
    missing, unexpected = head.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"the weights do not fit the head: missing {missing}, unexpected {unexpected}")


def la_det_name(key: str) -> str:
    """la_det's name of a weight of the file."""
    layer, *numbers, kind = key.split(".")
    if layer not in TOWERS:
        return ".".join([LAYERS[layer], *numbers, kind])
    # A block is convolution, norm and activation here; the mask tower ends with a convolution by itself.
    within_block = {"conv": 0, "gn": 1, "0": 0, "1": 1}[numbers[1]] if len(numbers) > 1 else 0
    return f"{TOWERS[layer]}.{3 * int(numbers[0]) + within_block}.{kind}"


def compare_head(golden: GoldenFile, mode: str, predictions: DensePredictions) -> None:
    """All outputs that the file has; its boxes are in pixels, in training CondInst's in strides."""
    for key, name in MAPS.items():
        for level, (x, stride) in enumerate(
            zip(predictions.maps.get(name, []), predictions.priors.level_strides, strict=False)
        ):
            if f"{mode}_{key}_l{level}" in golden:
                in_strides = name == "boxes" and mode == "eval" and predictions.codec.in_strides
                golden.close(f"{mode}_{key}_l{level}", x * stride if in_strides else x, atol=1e-4)
    for key, name in IMAGE_MAPS.items():
        if name in predictions.image_maps:
            golden.close(f"{mode}_{key}", predictions.image_maps[name], atol=1e-4)


def check_inference(golden: GoldenFile) -> None:
    """Detections of one image and, of CondInst, their masks."""
    config = model_config(golden)
    config.inference.score_threshold = golden.number("score_thr")
    config.inference.candidates.topk = golden.number("nms_pre")
    config.inference.max_detections = golden.number("max_per_img")
    if "mask_feat" in golden:  # boxes are in pixels in this kind of file
        config.head.predictors.main.codec = None
    predictions = read_predictions(golden, config).detach()
    image_sizes = golden.array("image_sizes").tolist()
    output_sizes = golden.array("output_sizes").tolist() if "output_sizes" in golden else image_sizes
    detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
    found = with_all_boxes(detections, image_sizes[0], output_sizes[0])
    order = compare_detections(
        golden,
        ("boxes", "scores", "classes"),
        found.pred_boxes.tensor,
        found.scores,
        found.pred_classes,
        box_atol=1e-3,
        score_atol=1e-5,
    )
    if "mask_feat" in golden:
        check_mask_inference(golden, config, predictions, found[order], image_sizes[0])


def with_all_boxes(detections: Candidates, image_size: list[int], output_size: list[int]) -> Instances:
    """`to_instances` of one image, with the boxes that have no area after clipping: the original returns them."""
    valid = detections.valid[0]
    scale = torch.tensor(output_size).flip(0).repeat(2) / torch.tensor(image_size).flip(0).repeat(2)
    boxes = Boxes(detections.boxes[0, valid] * scale)
    boxes.clip(tuple(output_size))
    return Instances(
        tuple(output_size),
        pred_boxes=boxes,
        scores=detections.scores[0, valid],
        pred_classes=detections.classes[0, valid],
        priors=detections.priors[0, valid],
    )


def check_mask_inference(
    golden: GoldenFile, config: DictConfig, predictions: DensePredictions, found: Instances, image_size: list[int]
) -> None:
    """Masks of the detections, in the file's order."""
    logits = instantiate(config.mask_inference).logits(predictions, found.priors.unsqueeze(0))[0]
    golden.exact("points", predictions.priors.points[found.priors])
    golden.exact("instance_strides", predictions.priors.strides[found.priors])
    golden.close("mask_logits", logits, atol=1e-4)
    found.mask_probabilities = logits.sigmoid()
    paste_masks(found, tuple(image_size), predictions.priors.level_strides[0] // 2)
    expected = golden.tensor("masks")
    differ = (found.pred_masks != expected).float().mean() if found.pred_masks.shape == expected.shape else float("inf")
    golden.record("masks", differ, 5e-4)
