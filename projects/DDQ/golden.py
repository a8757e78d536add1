"""Golden files of DDQ FCN: queries, costs, matching, soft targets, losses of both branches; head; inference."""

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.modeling.criteria import Criterion, LossTerm, loss_terms, reduce_losses
from la_det.modeling.inference import Candidates
from la_det.steps.score import query_probabilities
from la_det.structures import DensePredictions, Queries, Targets
from la_det.testing.golden import GoldenFile, compare_detections, read_predictions, read_targets, terms_of_process

# Branch -> what its keys begin with in the files.
PREFIXES = {"main": "", "auxiliary": "aux_"}
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "obj": "quality", "dist": "boxes"}
# Name of a module in the files -> la_det's, of either branch.
LAYERS = {
    "conv_cls": "logits",
    "conv_reg": "boxes",
    "objectness.0": "quality_tower.0",
    "objectness.2": "quality",
    "conv_objectness.0": "quality_tower.0",
    "conv_objectness.2": "quality",
}


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if "feat_l0" in golden:
        check_head(golden)
    elif "det_boxes_0" in golden:
        check_inference(golden)
    else:
        check_losses(golden)
    golden.ignore("strides", "image_sizes", "padded_size", "num_classes", "shuffle_channels", "norm_groups")


def model_config(golden: GoldenFile) -> DictConfig:
    """The `model` node with the file's classes and strides."""
    config = model_zoo.get_config("common/models/ddq_fcn").model
    config.num_classes = golden.number("num_classes")
    for branch in PREFIXES:
        config.head.predictors[branch].priors.strides = golden.array("strides").tolist()
    return config


def read_case(golden: GoldenFile) -> tuple[list[Criterion], dict[str, DensePredictions], Targets]:
    """Criteria, predictions of each branch, and ground truths."""
    config = model_config(golden)
    predictions = {
        branch: read_predictions(golden, config.head.predictors[branch], MAPS, PREFIXES[branch]) for branch in PREFIXES
    }
    return list(instantiate(config.criteria)), predictions, read_targets(golden)


def check_losses(golden: GoldenFile) -> None:
    """Both branches' decisions, losses and gradients."""
    criteria, predictions, targets = read_case(golden)

    def terms_of(other: GoldenFile) -> dict[str, LossTerm]:
        c, p, t = read_case(other)
        return loss_terms(c, p, t, progress=0.0)

    for criterion in criteria:
        check_decision(golden, criterion, predictions[criterion.branch], targets)
    terms = loss_terms(criteria, dict(predictions), targets, progress=0.0)
    for prefix in PREFIXES.values():
        golden.close(f"{prefix}target_sum", terms[f"{prefix}loss_cls"].normaliser, rtol=1e-5)
    terms = terms_of_process(golden, terms, terms_of)
    for prefix in PREFIXES.values():
        if f"{prefix}target_sum_mean" in golden:
            golden.close(f"{prefix}target_sum_mean", terms[f"{prefix}loss_cls"].normaliser, rtol=1e-5)
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(name, loss, rtol=1e-5)
    golden.close("loss_total", sum(losses.values()), rtol=1e-5)
    sum(losses.values()).backward()
    for branch, prefix in PREFIXES.items():
        for key, name in MAPS.items():
            for level, leaf in enumerate(predictions[branch].maps[name]):
                golden.close_to_max(f"grad_{prefix}{key}_l{level}", leaf.grad, 1e-4)


def check_decision(golden: GoldenFile, criterion: Criterion, predictions: DensePredictions, targets: Targets) -> None:
    """Queries, costs, matches, k and soft targets."""
    prefix, num_priors = PREFIXES[criterion.branch], len(predictions.priors)
    queries = criterion.queries(predictions, criterion.score)
    probabilities = query_probabilities(predictions.detach(queries), targets, criterion.score)
    costs = criterion.matcher.cost.of_queries(*probabilities, queries, targets)
    assignment = criterion.assign(predictions, targets, progress=0.0).assignment
    pairs, first = assignment.pairs, 0
    for i, count in enumerate(targets.counts):
        check_queries(golden, f"{prefix}queries_{i}", queries, i)
        golden.exact(f"{prefix}selected_{i}", queries.mask[i])
        here = pairs.image == i
        matched, target = torch.full((num_priors,), -1), torch.zeros(num_priors)
        matched[pairs.prior[here]] = pairs.gt[here] - first
        target[pairs.prior[here]] = assignment.target[here]
        golden.exact(f"{prefix}matched_{i}", matched)
        golden.close_to_max(f"{prefix}target_{i}", target, 1e-4)
        if f"{prefix}topk_{i}" in golden:
            golden.exact(f"{prefix}topk_{i}", torch.bincount(pairs.gt[here] - first, minlength=count).amax())
        if f"{prefix}cost_{i}" in golden:
            order = golden.tensor(f"{prefix}queries_{i}")
            dense = costs.new_full((count, num_priors), torch.nan)
            dense[:, queries.prior[i]] = costs[first : first + count]
            golden.close_to_max(f"{prefix}cost_{i}", dense[:, order].T, 1e-4)
        first += count


def check_queries(golden: GoldenFile, key: str, queries: Queries, i: int) -> None:
    """The queries of image i as a set, whatever their order."""
    expected = torch.zeros(queries.num_priors, dtype=torch.bool).index_fill_(0, golden.tensor(key), True)
    golden.record(key, float((expected != queries.mask[i]).sum()), 0.0)


def check_inference(golden: GoldenFile) -> None:
    """Queries, and detections: 300, 20, and 300 in the original image."""
    config = model_config(golden)
    predictions = read_predictions(golden, config.head.predictors.main, MAPS)
    sizes = golden.tensor("image_sizes")
    rule = instantiate(config.inference)
    golden.exact("max_detections", rule.max_detections)
    queries = rule.queries(predictions, rule.score)
    for i in range(len(sizes)):
        check_queries(golden, f"queries_{i}", queries, i)
        golden.ignore(f"gt_boxes_{i}", f"gt_classes_{i}")
    found = rule(predictions, sizes)
    compare(golden, "det", found)
    config.inference.max_detections = 20
    compare(golden, "detsmall", instantiate(config.inference)(predictions, sizes))
    for i, (height, width) in enumerate(golden.array("output_sizes").tolist()):  # empty boxes stay
        scales = torch.tensor([width, height, width, height]) / sizes[i].flip(0).repeat(2)
        keys = tuple(f"out_{name}_{i}" for name in ("boxes", "scores", "classes"))
        fields = found.boxes[i] * scales, found.scores[i], found.classes[i]
        compare_detections(golden, keys, *fields, box_atol=1e-2, score_atol=1e-5)


def compare(golden: GoldenFile, prefix: str, found: Candidates) -> None:
    """Detections of all images in the network input."""
    for i, valid in enumerate(found.valid):
        keys = tuple(f"{prefix}_{name}_{i}" for name in ("boxes", "scores", "classes"))
        fields = found.boxes[i, valid], found.scores[i, valid], found.classes[i, valid]
        compare_detections(golden, keys, *fields, box_atol=1e-2, score_atol=1e-5)


def check_head(golden: GoldenFile) -> None:
    """Outputs of a head with the file's weights, and gradients."""
    config = model_config(golden)
    features = [x.requires_grad_() for x in golden.levels("feat")]
    config.backbone.out_channels = features[0].shape[1]
    for tower in (config.head.cls_tower, config.head.box_tower):
        tower.groups = golden.number("norm_groups")
    head = instantiate(config.head)
    names = {key.removeprefix("w:"): our_name(key.removeprefix("w:")) for key in golden if key.startswith("w:")}
    state = {}
    for key, (name, level) in names.items():
        weight = golden.tensor(f"w:{key}")
        if level is None:
            state[name] = weight
        else:
            state.setdefault(name, torch.zeros(len(features)))[level] = weight
    head.load_state_dict(state)
    predictions = head(features)
    total, score = torch.zeros(()), instantiate(config.inference.score)
    for branch, prefix in PREFIXES.items():
        for level in range(len(features)):
            for key, name in MAPS.items():
                x = predictions[branch].maps[name][level]
                golden.close_to_max(f"{prefix}{key}_l{level}", x, 1e-4)
                total = total + (golden.tensor(f"up_{prefix}{key}_l{level}") * x).sum()
            golden.close_to_max(f"{prefix}score_l{level}", score.dense(predictions[branch], level).squeeze(1), 1e-4)
    total.backward()
    for level, x in enumerate(features):
        golden.close_to_max(f"grad_feat_l{level}", x.grad, 1e-4)
    parameters = dict(head.named_parameters())
    for key, (name, level) in names.items():
        grad = parameters[name].grad
        golden.close_to_max(f"gw:{key}", grad if level is None else grad[level], 1e-4)


def our_name(key: str) -> tuple[str, int | None]:
    """la_det's name of a weight of the head, and the element of it, if it is a scale."""
    branch = "auxiliary" if key.startswith("aux_") else "main"
    layer, _, kind = key.removeprefix("aux_").rpartition(".")
    kind_of_tower, _, rest = layer.partition("_convs.")
    if rest:
        number, part = rest.split(".")
        tower = {"cls": "cls_tower", "reg": "box_tower"}[kind_of_tower]
        return f"{tower}.{3 * int(number) + (part == 'gn')}.{kind}", None
    if layer.startswith("scales."):
        return f"predictors.{branch}.scales", int(layer.removeprefix("scales."))
    return f"predictors.{branch}.{LAYERS[layer]}.{kind}", None
