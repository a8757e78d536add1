"""Golden files of PAA: fits, assignments and losses, inference, the head."""

import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.matchers.paa import Candidates, best_of_levels, fit, log_densities, up_to_peak
from la_det.modeling.criteria import Criterion
from la_det.structures import Assignment, DensePredictions, Targets
from la_det.testing.check import golden_module
from la_det.testing.golden import GoldenFile, NotBuilt, average_normalisers, compare_detections

CONFIG = "PAA/paa_r50_fpn_1x_coco"
atss = golden_module("dynamic_atss")  # whose code base and kind of files are the same


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if golden.name.startswith("paa_mm_"):
        raise NotBuilt("MMDetection's variant of PAA's losses")
    if "gmm_positives" in golden:
        check_fits_alone(golden)
    elif "w/cls_logits.weight" in golden:
        check_head(golden)
    elif "det_boxes_0" in golden:
        check_inference(golden)
    elif "rank0_assign_gt" in golden:
        check_losses([golden.part("rank0_"), golden.part("rank1_")])
    else:
        check_losses([golden])
    golden.ignore("strides", "feat_sizes", "num_classes", "box_offset", "anchor_sizes")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node of the config, in the file's coordinate convention."""
    config = model_zoo.get_config(CONFIG).model
    config.num_classes = golden.number("num_classes")
    config.head.predictors.main.priors.update(
        box_offset=golden.number("box_offset"), strides=golden.array("strides").tolist()
    )
    return config


def check_losses(processes: list[GoldenFile]) -> None:
    """Assignment, losses and gradients of processes, which average their normalisers."""
    config = model_config(processes[0])
    (criterion,) = instantiate(config.criteria)
    inputs = [
        (*atss.read_predictions(golden, config), Targets.from_instances(atss.read_instances(golden)))
        for golden in processes
    ]
    of_processes = average_normalisers([criterion(x, targets, progress=0.0) for x, _, targets in inputs])
    for golden, (predictions, leaves, targets), terms in zip(processes, inputs, of_processes, strict=True):
        check_assignment(golden, criterion, predictions, targets)
        atss.check_loss_values(golden, "", terms).backward()
        for name, levels in leaves.items():
            for level, leaf in enumerate(levels):
                golden.close_to_max(f"grad_{name}_l{level}", leaf.grad, 1e-4)
        if "num_pos_avg" in golden:
            golden.close("num_pos_avg", terms["loss_cls"].normaliser, rtol=1e-6)
            golden.close("sum_target_avg", terms["loss_box_reg"].normaliser, rtol=1e-4)


def check_assignment(golden: GoldenFile, criterion: Criterion, predictions: DensePredictions, targets: Targets) -> None:
    """Every step of the matcher, and the IoUs of the positives' predicted boxes."""
    matcher, detached, priors = criterion.matcher, predictions.detach(), predictions.priors

    def dense(pairs, values: Tensor) -> Tensor:
        full = torch.zeros(targets.num_images, len(priors))
        full[pairs.image, pairs.prior] = values
        return full

    pairs = matcher.first(detached, targets, score=criterion.score, progress=0.0).pairs
    golden.exact("first_gt", atss.assigned_within_image(Assignment(pairs), targets, predictions))
    s = matcher.scores(detached, targets, pairs, criterion.score)
    golden.close("score", dense(pairs, s), atol=1e-4)
    if "gmm_prior" in golden:
        counts = torch.tensor(targets.counts)
        row = (counts.cumsum(0) - counts)[golden.tensor("gmm_image")] + golden.tensor("gmm_gt")
        candidates = best_of_levels(pairs, s, priors, len(targets), matcher.topk)
        size = golden.array("gmm_prior").shape[1]
        candidates = Candidates(*(x[row, :size] for x in vars(candidates).values()))
        golden.exact("gmm_prior", F.pad(pairs.prior, (0, 1), value=-1)[candidates.pair])
        golden.close("gmm_loss", candidates.score, atol=1e-4)
        check_fits(golden, candidates, rtol=1e-3)

    decision = criterion.assign(predictions, targets, progress=0.0)
    golden.exact("assign_gt", atss.assigned_within_image(decision.assignment, targets, predictions))
    golden.exact("num_pos", len(decision.assignment.pairs))
    golden.close("iou_targets", dense(decision.assignment.pairs, decision.iou), atol=1e-5)
    golden.close("sum_target", decision.iou.sum(), rtol=1e-4)


def check_fits_alone(golden: GoldenFile) -> None:
    """Fits to the file's scores, and the positives that follow from them."""
    score = golden.tensor("gmm_loss")
    exist = torch.arange(score.shape[1]) < golden.tensor("gmm_count").unsqueeze(1)
    candidates = Candidates(torch.zeros_like(exist, dtype=torch.int64), score.double().masked_fill(~exist, 0), exist)
    check_fits(golden, candidates, rtol=1e-4)
    golden.exact("gmm_positives", up_to_peak(candidates, fit(candidates)).sum(1))
    golden.ignore("gmm_converged", "gmm_stable")


def check_fits(golden: GoldenFile, candidates: Candidates, rtol: float) -> None:
    """Iterations, parameters, and component and density of each candidate."""
    mixture, exist = fit(candidates), candidates.exist
    golden.exact("gmm_count", exist.sum(1))
    golden.exact("gmm_iter", mixture.iterations)
    for name, values in zip(("weight", "mean", "var"), mixture.parameters, strict=True):
        golden.close(f"gmm_{name}", values.T, rtol=rtol)
    log_parts = log_densities(candidates.score, *mixture.parameters.unsqueeze(-1))
    golden.exact("gmm_label", log_parts.argmax(0).masked_fill(~exist, -1))
    golden.close("gmm_logp", torch.logaddexp(*log_parts).masked_fill(~exist, 0), atol=rtol)


def check_inference(golden: GoldenFile) -> None:
    """Detections in the network input: with voting, without, and with fewer candidates and detections."""
    config = model_config(golden)
    config.inference.score_threshold = golden.number("score_threshold")
    config.inference.nms_threshold = golden.number("nms_threshold")
    predictions, _ = atss.read_predictions(golden, config)
    for kind, size, voting in (("det", "", True), ("detraw", "", False), ("detsmall", "small_", True)):
        config.inference.candidates.topk = golden.number(f"{size}pre_nms_top_n")
        config.inference.max_detections = golden.number(f"{size}max_detections")
        inference = instantiate(config.inference)
        inference.voting = inference.voting if voting else None
        detections = inference(predictions, golden.tensor("image_sizes"))
        for i, valid in enumerate(detections.valid):
            compare_detections(
                golden,
                (f"{kind}_boxes_{i}", f"{kind}_scores_{i}", f"{kind}_classes_{i}"),
                atss.to_file(detections.boxes[i, valid], predictions.priors.box_offset),
                detections.scores[i, valid],
                detections.classes[i, valid],
                box_atol=1e-2,
                score_atol=1e-5,
            )
            golden.ignore(f"gt_boxes_{i}", f"gt_classes_{i}")


def check_head(golden: GoldenFile) -> None:
    """Outputs of the head with the file's weights."""
    config = model_zoo.get_config(CONFIG).model
    inputs = golden.levels("in")
    config.backbone.out_channels = inputs[0].shape[1]
    config.num_classes = len(golden.array("w/cls_logits.bias"))
    for tower in (config.head.cls_tower, config.head.box_tower):
        tower.num_convs = golden.number("num_convs")
    outputs = atss.run_head(golden, config, inputs)
    for level in range(len(inputs)):
        for kind in ("cls", "reg", "iou"):
            golden.close(f"out_{kind}_l{level}", outputs.maps[atss.MAPS[kind]][level], atol=1e-5)
