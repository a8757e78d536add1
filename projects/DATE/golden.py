"""Golden files of DATE: losses of both branches, also in two processes, the head, inference, the CrowdHuman metric."""

from dataclasses import dataclass

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.matchers import Hungarian
from la_det.modeling.criteria import Criterion, LossTerm, reduce_losses
from la_det.modeling.heads import FilteredPredictor
from la_det.modeling.inference import to_instances
from la_det.modeling.layers import filtered_logits
from la_det.references.scene import dense_matches
from la_det.steps.candidates import center_region
from la_det.structures import Assignment, DensePredictions, Targets
from la_det.testing.golden import GoldenFile, compare_detections, read_targets, terms_of_process
from la_det.testing.golden_crowdhuman import check_date as check_metric

CONFIG = "DATE/date_f_r50_fpn_12ep_coco"
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "box": "boxes", "ctr": "quality", "filter": "filter"}
# Normalisers in the files, after averaging and lower bounds -> a loss of la_det that is divided by it.
NORMALISERS = {
    "o2o_cls_normalizer": "loss_o2o_cls",
    "o2o_box_normalizer": "loss_o2o_l1",
    "fcos_num_pos_normalizer": "loss_fcos_cls",
    "fcos_centerness_normalizer": "loss_fcos_iou",
    "retina_normalizer": "loss_retina_cls",
}
# la_det's name of each layer in the files.
LAYERS = {
    "cls": "logits",
    "box": "boxes",
    "ctr": "quality",
    "filter_conv": "filter",
    "3dmf.conv": "max_filtering.conv",
    "3dmf.gn": "max_filtering.norm",
}


def check(golden: GoldenFile) -> None:
    """Checks whatever a file holds."""
    if "dt_scores" in golden:
        check_metric(golden)
    elif "channels" in golden:
        check_head(golden)
    elif "score_thr" in golden:
        check_inference(golden)
    else:
        check_losses(golden)
    golden.ignore("canvas", "num_classes", "strides", "image_sizes")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node that the keys of a file ask for, with the file's classes and strides."""
    config = model_zoo.get_config("DATE/date_r_r50_fpn_12ep_coco" if _has(golden, "retina") else CONFIG).model
    if not _has(golden, "retina") and not _has(golden, "fcos"):
        config.criteria = config.criteria[:1]
    if _has(golden, "o2o_filter"):
        with_filter = model_zoo.get_config("DATE/date_f_3dmf_r50_fpn_12ep_coco").model
        config.head.predictors.one_to_one = with_filter.head.predictors.one_to_one
    if any(key.startswith("o2o_cost_") for key in golden):
        crowdhuman = model_zoo.get_config("DATE/date_f_r50_fpn_30k_crowdhuman").model
        config.criteria[0].matcher = crowdhuman.criteria[0].matcher
    config.num_classes = golden.number("num_classes")
    for branch in ("one_to_one", "one_to_many"):
        config.head.predictors[branch].priors.strides = golden.array("strides").tolist()
    return config


def _has(golden: GoldenFile, name: str) -> bool:
    return any(key.startswith(f"l0_{name}") for key in golden)


@dataclass(frozen=True)
class Case:
    """What a file of losses holds.

    Attributes:
        criteria: of the one-to-one branch and, where the file has it, of the one-to-many branch.
        predictions: by branch.
        maps: key in the file -> leaf that collects gradients.
        targets: ground truths.
    """

    criteria: list[Criterion]
    predictions: dict[str, DensePredictions]
    maps: dict[str, Tensor]
    targets: Targets

    def terms(self) -> dict[str, LossTerm]:
        terms = {}
        for criterion in self.criteria:
            terms |= criterion(self.predictions[criterion.branch], self.targets, progress=0.0)
        return terms


def read_case(golden: GoldenFile) -> Case:
    """Criteria from the configs, and the file's maps and ground truths."""
    config = model_config(golden)
    maps: dict[str, Tensor] = {}
    predictions = {"one_to_one": read_predictions(golden, config, "one_to_one", "o2o", maps)}
    if len(config.criteria) == 2:
        second = "retina" if _has(golden, "retina") else "fcos"
        predictions["one_to_many"] = read_predictions(golden, config, "one_to_many", second, maps)
    return Case(list(instantiate(config.criteria)), predictions, maps, read_targets(golden))


def read_predictions(
    golden: GoldenFile, config: DictConfig, branch: str, prefix: str, leaves: dict[str, Tensor]
) -> DensePredictions:
    """A branch's maps; `leaves` gets them by their keys."""
    predictor = instantiate(config.head.predictors[branch])
    levels = range(len(config.head.predictors[branch].priors.strides))
    maps = {}
    for key, name in MAPS.items():
        if _has(golden, f"{prefix}_{key}"):
            keys = [f"l{level}_{prefix}_{key}" for level in levels]
            leaves |= {k: golden.tensor(k).requires_grad_() for k in keys}
            maps[name] = [leaves[k] for k in keys]
    if isinstance(predictor, FilteredPredictor):
        maps["logits"] = list(map(filtered_logits, maps["logits"], maps["filter"]))
    priors = predictor.priors([x.shape[-2:] for x in maps["logits"]], golden.device)
    return DensePredictions(priors, predictor.codec, maps)


def check_losses(golden: GoldenFile) -> None:
    """Assignments, normalisers, losses and gradients."""
    case = read_case(golden)
    for criterion in case.criteria:
        check_assignment(golden, case.predictions[criterion.branch], case.targets, criterion)
    terms = terms_of_process(golden, case.terms(), lambda other: read_case(other).terms())
    for key, name in NORMALISERS.items():
        if key in golden:
            golden.close(key, terms[name].normaliser.clamp(min=terms[name].floor), rtol=1e-5)
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(name, loss, rtol=1e-5)
    total = sum(losses.values())
    golden.close("loss_total", total, rtol=1e-5)
    total.backward()
    for key, leaf in case.maps.items():
        expected = golden.tensor(f"grad_{key}")
        # 1e-4 of the largest entry, plus 1e-7.
        error = (leaf.grad - expected).abs().max() / (expected.abs().max() + 1e-3)
        golden.record(f"grad_{key}", error, 1e-4)


def check_assignment(golden: GoldenFile, predictions: DensePredictions, targets: Targets, criterion: Criterion) -> None:
    """Who is matched with whom and, for the one-to-one branch, the matrices that the solver sees."""
    decision = criterion.assign(predictions, targets, progress=0.0)
    seen, assignment = decision.targets, decision.assignment
    branch = next(iter(criterion.losses)).split("_")[1]
    golden.exact(f"{branch}_assign", _matched_within_image(assignment, seen, len(predictions.priors)))
    if f"{branch}_num_pos" in golden:
        golden.exact(f"{branch}_num_pos", len(assignment.pairs))
    if branch == "o2o":
        check_matrices(golden, predictions.detach(), seen, criterion)


def _matched_within_image(assignment: Assignment, targets: Targets, num_priors: int) -> Tensor:
    """Index of the matched ground truth within its image, -1 for background, -2 for dropped: [N, R]."""
    matched = dense_matches(assignment, targets.num_images, num_priors)
    counts = torch.tensor(targets.counts)
    matched = torch.where(matched >= 0, matched - (counts.cumsum(0) - counts).unsqueeze(-1), -1)
    if assignment.dropped is not None:
        matched[assignment.dropped] = -2
    return matched


def check_matrices(golden: GoldenFile, predictions: DensePredictions, targets: Targets, criterion: Criterion) -> None:
    """Qualities or costs of all locations: [R, g] of each image with ground truths."""
    if isinstance(criterion.matcher, Hungarian):
        kind, dense = "cost", criterion.matcher.cost(predictions, targets, criterion.score).dense().T
    else:
        kind, dense = "quality", _all_qualities(predictions, targets, criterion)
    for i, matrix in enumerate(dense.split(list(targets.counts), 1)):
        if targets.counts[i]:
            golden.close_to_max(f"o2o_{kind}_{i}", matrix, 1e-5)


def _all_qualities(predictions: DensePredictions, targets: Targets, criterion: Criterion) -> Tensor:
    matcher = criterion.matcher
    pairs, inside = center_region(predictions.priors, targets, matcher.center_radius)
    omega = pairs[inside]
    dense = torch.full((len(predictions.priors), len(targets)), matcher.outside)
    dense[omega.prior, omega.gt] = matcher.matching_quality(predictions, targets, omega, criterion.score)
    return dense


def check_head(golden: GoldenFile) -> None:
    """Maps of the whole head with given weights."""
    config = model_config(golden)
    config.backbone.out_channels = golden.number("channels")
    config.head.cls_tower.num_convs = config.head.box_tower.num_convs = golden.number("num_convs")
    second = "retina" if _has(golden, "retina") else "fcos"
    head = instantiate(config.head)
    head.load_state_dict(read_weights(golden, {"o2o": "one_to_one", second: "one_to_many"}))
    levels = range(len(golden.array("strides")))
    features = [golden.tensor(f"l{level}_feat") for level in levels]

    predictor = head.predictors["one_to_one"]
    if isinstance(predictor, FilteredPredictor):
        compare_maps(golden, "o2o_cls_filtered", head(features, ["one_to_one"])["one_to_one"].maps["logits"])
        box_features = [head.box_tower(x) for x in features]
        compare_maps(golden, "3dmf_in", box_features)
        compare_maps(golden, "3dmf_out", predictor.max_filtering(box_features))
        predictor.filter_logits = False  # for the logits before filtering
    outputs = head(features)
    for branch, predictions in (("o2o", outputs["one_to_one"]), (second, outputs["one_to_many"])):
        for key, name in MAPS.items():
            if name in predictions.maps:
                compare_maps(golden, f"{branch}_{key}", predictions.maps[name])


def compare_maps(golden: GoldenFile, name: str, maps: list[Tensor]) -> None:
    for level, x in enumerate(maps):
        golden.close_to_max(f"l{level}_{name}", x, 1e-5)


def read_weights(golden: GoldenFile, branches: dict[str, str]) -> dict[str, Tensor]:
    """The weights of a head under la_det's names; `branches` maps the file's name of a branch to la_det's."""
    weights, scales = {}, {}
    for key in golden:
        if not key.startswith("w."):
            continue
        layer, _, parameter = key.removeprefix("w.").rpartition("_")
        part, _, rest = layer.partition(".")
        if part in branches:
            weights[f"predictors.{branches[part]}.{LAYERS[rest]}.{parameter}"] = golden.tensor(key)
        elif part.endswith("_tower"):
            k, kind = rest.split(".")
            index = 3 * int(k) + ("conv", "gn").index(kind)
            weights[f"{part.replace('reg', 'box')}.{index}.{parameter}"] = golden.tensor(key)
        else:
            scales[int(key.removeprefix("w.scale."))] = golden.tensor(key)
    weights["scales"] = torch.stack([scales[level] for level in sorted(scales)])
    return weights


def check_inference(golden: GoldenFile) -> None:
    """Detections in the network input and in the original image."""
    config = model_config(golden)
    config.inference.update(
        score_threshold=golden.number("score_thr"),
        max_detections=golden.number("max_dets"),
    )
    config.inference.candidates.topk = golden.number("nms_pre")
    predictions = read_predictions(golden, config, "one_to_one", "o2o", {})
    image_sizes, original_sizes = golden.array("image_sizes").tolist(), golden.array("orig_sizes").tolist()
    detections = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
    factors = torch.tensor(image_sizes) / torch.tensor(original_sizes)
    golden.close("scale_factors", factors.flip(-1).repeat(1, 2), rtol=1e-5)
    for i, final in enumerate(to_instances(detections, image_sizes, original_sizes)):
        fields = (x[i, detections.valid[i]] for x in (detections.boxes, detections.scores, detections.classes))
        keys = (f"det_boxes_net_{i}", f"det_scores_{i}", f"det_classes_{i}")
        order = compare_detections(golden, keys, *fields, box_atol=1e-3, score_atol=1e-5)
        # Detectron2's post-processing leaves out boxes without area, which the official code keeps.
        nonempty = Boxes(detections.boxes[i, detections.valid[i]]).nonempty()
        position = (nonempty.cumsum(0) - 1)[order[nonempty[order]]]
        expected = golden.tensor(f"det_boxes_{i}")[nonempty[order]]
        error = (final.pred_boxes.tensor[position] - expected).abs().max() if len(expected) else 0.0
        golden.record(f"det_boxes_{i}", error if len(final) == len(expected) else float("inf"), 1e-3)
