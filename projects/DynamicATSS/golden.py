"""Golden files of ATSS, Dynamic ATSS and the ATSS baseline on CrowdHuman."""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.geometry import aligned_giou, aligned_iou, centerness
from la_det.matchers import FCOS, MaxIoU, TopKIoU
from la_det.modeling.criteria import Criterion, LossTerm, VarifocalLoss, reduce_losses
from la_det.references.scene import dense_matches
from la_det.structures import Assignment, DensePredictions, LTRBCodec, Targets
from la_det.testing.golden import GoldenFile, average_normalisers, compare_detections

ATSS, DYNAMIC_ATSS = "ATSS/atss_r50_fpn_1x_coco", "DynamicATSS/dynamic_atss_r50_fpn_1x_coco"
ATSS_CROWDHUMAN = "ATSS/atss_r50_fpn_30k_crowdhuman"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "reg": "boxes", "iou": "quality", "ctr": "quality"}
LOSSES = {
    "loss_cls": "loss_cls",
    "loss_box_reg": "loss_reg",
    "loss_centerness": "loss_centerness",
    "loss_iou": "loss_iou",
}
# The reference's POSITIVE_TYPE: the same settings of the inside test and of overlaps in this project's matchers.
POSITIVE_TYPES = {
    "ssc": L(FCOS)(center_radius=0, margin=0.01),
    "iou": L(MaxIoU)(reassign_best=False, margin=0.01),
    "topk": L(TopKIoU)(),
}


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if "w/cls_logits.weight" in golden:
        check_head(golden)
    elif golden.name == "atss_codec":
        check_codec(golden)
    elif "det_boxes_0" in golden:
        check_inference(golden)
    elif "rank0_assign_gt" in golden:
        check_processes(golden, model_config(golden))
    elif "ssc_assign_gt" in golden:
        for name, matcher in POSITIVE_TYPES.items():
            config = model_config(golden)
            config.criteria[0].matcher = matcher
            check_losses(golden, config, f"{name}_")
    else:
        check_losses(golden, model_config(golden))
    golden.ignore("strides", "feat_sizes", "image_sizes", "num_classes", "box_offset", "anchor_sizes")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node of the file's config, in the file's coordinate convention."""
    is_crowdhuman, is_dynamic = golden.name.startswith("atss_ch"), golden.name.startswith("datss")
    config = model_zoo.get_config(ATSS_CROWDHUMAN if is_crowdhuman else DYNAMIC_ATSS if is_dynamic else ATSS).model
    config.num_classes = golden.number("num_classes")
    config.head.predictors.main.priors.update(
        box_offset=golden.number("box_offset"), strides=golden.array("strides").tolist()
    )
    if golden.name == "datss_vfl":
        config.criteria[0].losses.loss_cls = L(VarifocalLoss)()
    if is_point(golden):
        use_point_regression(config)
    return config


def is_point(golden: GoldenFile) -> bool:
    """Whether the boxes of the file are distances instead of deltas."""
    return golden.name.endswith("_point")


def use_point_regression(config: DictConfig) -> None:
    """The reference's REGRESSION_TYPE 'POINT'."""
    config.head.predictors.main.update(codec=L(LTRBCodec)(), box_activation="relu_stride", box_bias=4.0)


def read_predictions(golden: GoldenFile, config: DictConfig) -> tuple[DensePredictions, dict[str, list[Tensor]]]:
    """The predictions, and the file's maps as leaves that collect gradients."""
    predictor = instantiate(config.head.predictors.main)
    quality = "ctr" if "ctr_l0" in golden else "iou"
    leaves = {name: [x.requires_grad_() for x in golden.levels(name)] for name in ("cls", "reg", quality)}
    maps = {MAPS[name]: levels for name, levels in leaves.items()}
    if is_point(golden):  # in strides there, in pixels here
        maps["boxes"] = [x * stride for x, stride in zip(maps["boxes"], predictor.priors.strides, strict=True)]
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], golden.device)
    if "anchors" in golden:
        golden.close("anchors", to_file(priors.boxes, priors.box_offset), atol=1e-4)
    if "locations" in golden:
        golden.close("locations", priors.points, atol=1e-4)
    return DensePredictions(priors, predictor.codec, maps), leaves


def to_file(boxes: Tensor, box_offset: int) -> Tensor:
    """Continuous boxes in the file's convention, where a box of width 1 may have x2 = x1."""
    return boxes - torch.tensor([0, 0, box_offset, box_offset])


def read_instances(golden: GoldenFile) -> list[Instances]:
    """The ground truths of all images in continuous coordinates; class -1 is an ignored one."""
    instances, offset = [], golden.number("box_offset")
    for i, size in enumerate(golden.array("image_sizes").tolist()):
        boxes, classes = golden.tensor(f"gt_boxes_{i}"), golden.tensor(f"gt_classes_{i}")
        boxes = boxes + torch.tensor([0, 0, offset, offset])
        fields = {"gt_boxes": Boxes(boxes), "gt_classes": classes.clamp(min=0), "ignored": classes < 0}
        instances.append(Instances(tuple(size), **fields))
    return instances


def check_losses(golden: GoldenFile, config: DictConfig, prefix: str = "") -> None:
    """Assignment, losses and, where the file has them, targets and gradients."""
    (predictions, leaves), targets = read_predictions(golden, config), Targets.from_instances(read_instances(golden))
    (criterion,) = instantiate(config.criteria)
    check_decision(golden, prefix, criterion, predictions, targets)
    total = check_loss_values(golden, prefix, criterion(predictions, targets, progress=0.0))
    if not prefix:
        total.backward()
        for name, levels in leaves.items():
            for level, leaf in enumerate(levels):
                golden.close_to_max(f"grad_{name}_l{level}", leaf.grad, 1e-4)


def check_processes(golden: GoldenFile, config: DictConfig) -> None:
    """The same of simulated processes, each with one of the images: outputs have the prefixes rank0_, rank1_, ..."""
    (predictions, leaves), instances = read_predictions(golden, config), read_instances(golden)
    (criterion,) = instantiate(config.criteria)
    parts = [
        (predictions.of_images(torch.tensor([rank])), Targets.from_instances([image]))
        for rank, image in enumerate(instances)
    ]
    of_ranks = average_normalisers([criterion(*part, progress=0.0) for part in parts])
    for rank, (part, terms) in enumerate(zip(parts, of_ranks, strict=True)):
        prefix = f"rank{rank}_"
        check_decision(golden, prefix, criterion, *part)
        check_loss_values(golden, prefix, terms).backward()
        for name, levels in leaves.items():
            for level, leaf in enumerate(levels):
                golden.close_to_max(f"{prefix}grad_{name}_l{level}", leaf.grad[rank : rank + 1], 1e-4)


def check_decision(
    golden: GoldenFile, prefix: str, criterion: Criterion, predictions: DensePredictions, targets: Targets
) -> None:
    """Assignment and targets."""
    decision = criterion.assign(predictions, targets, progress=0.0)
    seen, assignment = decision.targets, decision.assignment
    golden.exact(f"{prefix}assign_gt", assigned_within_image(assignment, targets, predictions))
    check_targets(golden, prefix, predictions, seen, assignment)


def check_loss_values(golden: GoldenFile, prefix: str, terms: dict[str, LossTerm]) -> Tensor:
    """Every loss and, where the file has it, their sum, which is returned."""
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(f"{prefix}{LOSSES[name]}", loss, rtol=1e-4)
    total = sum(losses.values())
    if f"{prefix}total_loss" in golden:
        golden.close(f"{prefix}total_loss", total, rtol=1e-4)
    return total


def assigned_within_image(assignment: Assignment, targets: Targets, predictions: DensePredictions) -> Tensor:
    """[N, R] index of the matched ground truth in the file's list of its image; -1 background, -2 in no loss."""
    matched = dense_matches(assignment, targets.num_images, len(predictions.priors))
    # The matcher saw the list without the ignored ones.
    original = torch.cat([targets.objects, torch.tensor([-1])])
    counts = torch.tensor(targets.counts)
    first = (counts.cumsum(0) - counts).unsqueeze(-1)
    assigned = torch.where(matched >= 0, original[matched] - first, -1)
    if assignment.dropped is not None:
        assigned[assignment.dropped] = -2
    return assigned


def check_targets(
    golden: GoldenFile, prefix: str, predictions: DensePredictions, targets: Targets, assignment: Assignment
) -> None:
    """Number of positives, box targets, and the quality target (predicted IoU or centerness) with its sum."""
    priors, pairs = predictions.priors, assignment.pairs
    golden.exact(f"{prefix}num_pos", len(pairs))
    gt_boxes = targets.boxes[pairs.gt]
    quality = assignment.target
    if quality is None:
        quality = centerness(priors.points[pairs.prior], priors.inset(gt_boxes))
    # A sum of 0 has no relative error.
    golden.close(f"{prefix}sum_target", quality.sum(), **(dict(rtol=1e-4) if len(pairs) else dict(atol=1e-6)))
    if f"{prefix}reg_targets" not in golden:
        return

    def dense(values: Tensor) -> Tensor:
        full = values.new_zeros(targets.num_images, len(priors), *values.shape[1:])
        full[pairs.image, pairs.prior] = values
        return full

    codes = predictions.codec.encode(gt_boxes, priors, pairs.prior)
    if is_point(golden):
        codes = codes / priors.strides[pairs.prior].unsqueeze(-1)
    in_pixels = isinstance(predictions.codec, LTRBCodec)
    golden.close(f"{prefix}reg_targets", dense(codes), atol=1e-4 if in_pixels else 1e-5)
    name = "centerness_targets" if assignment.target is None else "iou_targets"
    golden.close(f"{prefix}{name}", dense(quality), atol=1e-4 if assignment.target is None else 1e-5)


def check_inference(golden: GoldenFile) -> None:
    """Detections in the network input."""
    config = model_config(golden)
    config.inference.score_threshold = golden.number("score_threshold")
    config.inference.nms_threshold = golden.number("nms_threshold")
    config.inference.candidates.topk = golden.number(
        "pre_nms_top_n" if "pre_nms_top_n" in golden else "topk_candidates"
    )
    config.inference.max_detections = golden.number("max_detections")
    predictions, _ = read_predictions(golden, config)
    detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
    for i, valid in enumerate(detections.valid):
        boxes = to_file(detections.boxes[i, valid], predictions.priors.box_offset)
        compare_detections(
            golden,
            (f"det_boxes_{i}", f"det_scores_{i}", f"det_classes_{i}"),
            boxes,
            detections.scores[i, valid],
            detections.classes[i, valid],
            box_atol=1e-3,
            score_atol=1e-5,
        )
        golden.ignore(f"gt_boxes_{i}", f"gt_classes_{i}")


def check_head(golden: GoldenFile) -> None:
    """Outputs of the head with the file's weights, for both kinds of box regression."""
    name = "ATSS/atss_dcnv2_r50_fpn_1x_coco" if golden.name.endswith("_dcn") else ATSS
    config = model_zoo.get_config(name).model
    inputs = golden.levels("in")
    config.backbone.out_channels = inputs[0].shape[1]
    config.num_classes = len(golden.array("w/cls_logits.bias"))
    for tower in (config.head.cls_tower, config.head.box_tower):
        tower.num_convs = golden.number("num_convs")
    outputs = run_head(golden, config, inputs)
    for level in range(len(inputs)):
        for kind in ("cls", "reg", "iou"):
            golden.close(f"out_{kind}_l{level}", outputs.maps[MAPS[kind]][level], atol=1e-5)
    if "out_reg_point_l0" in golden:
        use_point_regression(config)
        outputs = run_head(golden, config, inputs)
        for level, stride in enumerate(outputs.priors.level_strides):
            golden.close(f"out_reg_point_l{level}", outputs.maps["boxes"][level] / stride, atol=1e-5)


def run_head(golden: GoldenFile, config: DictConfig, inputs: list[Tensor]) -> DensePredictions:
    """Predictions of the config's head with the file's weights."""
    head = instantiate(config.head)
    weights = {key.removeprefix("w/"): golden.tensor(key) for key in golden if key.startswith("w/")}
    scales = [weights.pop(f"scales.{level}.scale") for level in range(len(inputs))]
    head.load_state_dict({rename(key): value for key, value in weights.items()} | {"scales": torch.cat(scales)})
    with torch.no_grad():
        return head(inputs)["main"]


def rename(key: str) -> str:
    """la_det's name of a parameter of the reference's head."""
    for theirs, ours in (
        ("cls_logits", "predictors.main.logits"),
        ("bbox_pred", "predictors.main.boxes"),
        ("centerness", "predictors.main.quality"),
        ("iou_pred", "predictors.main.quality"),
        (".conv.", "."),
    ):
        key = key.replace(theirs, ours)
    return key


def check_codec(golden: GoldenFile) -> None:
    """Anchors, box codes, IoU and GIoU in the pixel-inclusive convention."""
    config = model_zoo.get_config(ATSS).model.head.predictors.main
    config.priors.update(box_offset=1, strides=golden.array("strides").tolist())
    priors = instantiate(config.priors)(golden.array("feat_sizes").tolist(), golden.device)
    golden.close("anchors", to_file(priors.boxes, 1), atol=1e-4)
    prior, deltas = golden.tensor("sel"), golden.tensor("deltas")
    gt = golden.tensor("gt") + torch.tensor([0, 0, 1, 1])
    codec = instantiate(config.codec)
    for kind, its_codec, atol in (("box", codec, 1e-5), ("point", LTRBCodec(in_strides=True), 1e-4)):
        golden.close(f"encoded_{kind}", its_codec.encode(gt, priors, prior), atol=atol)
        golden.close(f"decoded_{kind}", to_file(its_codec.decode(deltas, priors, prior), 1), atol=1e-3)
    golden.close("iou", aligned_iou(gt[:20].unsqueeze(1), priors.boxes[prior][:30]), atol=1e-5)

    deltas = golden.tensor("giou_deltas").requires_grad_()
    boxes = codec.decode(deltas, priors, prior)
    loss = (golden.tensor("giou_weight") * (1 - aligned_giou(priors.inset(boxes), priors.inset(gt)))).sum()
    loss.backward()
    golden.close("giou_loss_sum", loss, rtol=1e-4)
    golden.close_to_max("giou_grad", deltas.grad, 1e-4)
