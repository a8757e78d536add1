"""Golden files of OTA (`ota_*`) and of SimOTA by both rules (`simota_*`)."""

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from la_det import model_zoo
from la_det.losses.cross_entropy import background_cross_entropy
from la_det.modeling.criteria import Criterion, reduce_losses
from la_det.modeling.inference import to_instances
from la_det.references.scene import matched_in_image
from la_det.steps.candidates import everywhere, ltrb_of_pairs
from la_det.structures import DensePredictions, Pairs, Targets
from la_det.testing.golden import GoldenFile, compare_detections, read_predictions, read_targets, terms_of_process

OTA = "OTA/ota_r50_fpn_1x_coco"
# Which config a variant of SimOTA is: MMDetection's port of the released rule, and YOLOX's main branch.
SIMOTA = {"mmdet": "OTA/simota_r50_fpn_1x_coco", "yolox": "OTA/simota_square_r50_fpn_1x_coco"}
# la_det's name of each kind of map in the files.
MAPS = {"cls": "logits", "ltrb": "boxes", "iou": "quality", "obj": "quality"}
# la_det's name of each module in the files.
MODULES = {
    "cls_subnet": "cls_tower",
    "bbox_subnet": "box_tower",
    "cls_score": "predictors.main.logits",
    "bbox_pred": "predictors.main.boxes",
    "ious_pred": "predictors.main.quality",
}
PENALISED = 1e5  # costs from here on are not compared


def check(golden: GoldenFile) -> None:
    """Checks a file by its kind."""
    if "feat_l0" in golden:
        check_head(golden)
    elif "obj_l0" in golden:
        for variant, name in SIMOTA.items():
            check_simota(golden, variant, name)
    else:
        check_ota(golden)
        check_ota_inference(golden)
    golden.ignore("strides", "image_sizes", "padded_size", "num_classes")


def model_config(golden: GoldenFile, name: str) -> DictConfig:
    """The `model` node of a config, with the file's classes and strides."""
    config = model_zoo.get_config(name).model
    config.num_classes = golden.number("num_classes")
    config.head.predictors.main.priors.strides = golden.array("strides").tolist()
    return config


def check_gradients(golden: GoldenFile, predictions: DensePredictions, keys: tuple[str, ...], prefix: str = "") -> None:
    """Of the maps, whose losses were differentiated."""
    for key in keys:
        for level, leaf in enumerate(predictions.maps[MAPS[key]]):
            golden.close_to_max(f"{prefix}grad_{key}_l{level}", leaf.grad, 1e-4)
            leaf.grad = None


def ota_case(golden: GoldenFile) -> tuple[Criterion, DensePredictions, Targets]:
    """Criterion, maps and ground truths of a file."""
    config = model_config(golden, OTA)
    (criterion,) = instantiate(config.criteria)
    return criterion, read_predictions(golden, config.head.predictors.main, MAPS), read_targets(golden)


def ota_terms(golden: GoldenFile) -> dict:
    """Loss terms of a file before averaging over processes."""
    criterion, predictions, targets = ota_case(golden)
    return criterion(predictions, targets, progress=0.0)


def check_ota(golden: GoldenFile) -> None:
    """Transport problem and plan, assignment, losses and gradients."""
    criterion, predictions, targets = ota_case(golden)
    decision = criterion.assign(predictions, targets, progress=0.0)
    check_transport(golden, criterion, predictions.detach(), targets)
    num_priors = len(predictions.priors)
    pairs = decision.assignment.pairs
    labels = torch.full((targets.num_images, num_priors), predictions.num_classes)
    labels[pairs.image, pairs.prior] = decision.classes
    iou, ltrb = torch.zeros(labels.shape), torch.zeros(*labels.shape, 4)
    iou[pairs.image, pairs.prior] = criterion.matcher.iou(predictions.detach(), targets, pairs)
    ltrb[pairs.image, pairs.prior] = ltrb_of_pairs(pairs, predictions.priors, targets)
    in_image = matched_in_image(decision.assignment, targets, num_priors)
    for i in range(targets.num_images):
        golden.exact(f"matched_{i}", in_image[i])
        golden.exact(f"label_{i}", labels[i])
        golden.close_to_max(f"iou_target_{i}", iou[i], 1e-4)
        golden.close_to_max(f"box_target_{i}", ltrb[i], 1e-4)

    golden.exact("num_pos", decision.assignment.num_positives)
    terms = terms_of_process(golden, criterion(predictions, targets, progress=0.0), ota_terms)
    golden.close("avg_factor", terms["loss_cls"].normaliser.clamp(min=1), rtol=1e-5)
    losses = reduce_losses(terms)
    for name, loss in losses.items():
        golden.close(name, loss, rtol=1e-5)
    golden.close("loss_total", sum(losses.values()), rtol=1e-5)
    sum(losses.values()).backward()
    check_gradients(golden, predictions, ("cls", "ltrb", "iou"))


def check_transport(golden: GoldenFile, criterion: Criterion, predictions: DensePredictions, targets: Targets) -> None:
    """Supplies, costs of candidates beyond the background's, and the plan where every ground truth has candidates."""
    matcher, num_priors, num_gts = criterion.matcher, len(predictions.priors), len(targets)
    pairs, transport = matcher.transport(predictions, targets, criterion.score)
    shares, alone = transport.shares(matcher.eps, matcher.iterations)
    location = pairs.location(num_priors)
    listed = torch.zeros(targets.num_images * num_priors, dtype=torch.bool).index_fill_(0, location, True)
    columns = listed.nonzero().squeeze(1)
    entry = torch.cat([pairs.prior, columns % num_priors])
    first = 0
    for i, count in enumerate(targets.counts):
        rows = [*range(first, first + count), num_gts + i]
        golden.exact(f"dynamic_k_{i}", transport.supply[rows[:-1]])
        golden.exact(f"background_supply_{i}", transport.supply[rows[-1]])
        cost = torch.full((len(rows), num_priors), torch.nan, dtype=torch.float64)
        plan = torch.zeros(len(rows), num_priors)
        plan[-1] = alone[rows[-1]]
        for j, row in enumerate(rows):
            mine = (transport.row == row).nonzero().squeeze(1)
            cost[j, entry[mine]], plan[j, entry[mine]] = transport.cost[mine], shares[mine]
        expected = golden.tensor(f"cost_{i}")
        compared = (expected < PENALISED) & ~cost.isnan()
        missing = (expected < PENALISED)[:-1] & ~compared[:-1]
        error = ((cost - (expected - expected[-1])).abs() / (1 + expected.abs()))[compared]
        golden.record(f"cost_{i}", torch.inf if missing.any() else error.max() if len(error) else 0.0, 1e-4)
        has_penalty = (expected[:-1] >= PENALISED).all(1).any()
        if has_penalty:  # such rows touch the plan, but no decision
            golden.ignore(f"plan_{i}")
        else:
            golden.close(f"plan_{i}", plan, atol=1e-4)
        first += count


def check_ota_inference(golden: GoldenFile) -> None:
    """Detections in the network input and in the original image, with two limits of their number."""
    for key, topk, max_detections in (("det", 1000, 100), ("detsmall", 30, 10)):
        if f"{key}_boxes_0" not in golden:
            continue
        config = model_config(golden, OTA)
        if key == "detsmall":
            config.inference.candidates.topk, config.inference.max_detections = topk, max_detections
        found = check_detections(golden, config, f"{key}_")
        if key == "det":
            sizes, output_sizes = golden.array("image_sizes").tolist(), golden.array("output_sizes").tolist()
            for i, final in enumerate(to_instances(found, sizes, output_sizes)):
                keys = tuple(f"out_{name}_{i}" for name in ("boxes", "scores", "classes"))
                fields = final.pred_boxes.tensor, final.scores, final.pred_classes
                compare_detections(golden, keys, *fields, box_atol=1e-2, score_atol=1e-5)


def check_detections(golden: GoldenFile, config: DictConfig, prefix: str):
    """Detections of all images in the network input; returns them."""
    predictions = read_predictions(golden, config.head.predictors.main, MAPS)
    found = instantiate(config.inference)(predictions, golden.tensor("image_sizes"))
    for i, valid in enumerate(found.valid):
        keys = tuple(f"{prefix}{name}_{i}" for name in ("boxes", "scores", "classes"))
        fields = found.boxes[i, valid], found.scores[i, valid], found.classes[i, valid]
        compare_detections(golden, keys, *fields, box_atol=1e-2, score_atol=1e-5)
    return found


def check_simota(golden: GoldenFile, variant: str, name: str) -> None:
    """Valid locations, k, costs, assignment, losses, gradients and detections of one rule."""
    config = model_config(golden, name)
    predictions, targets = read_predictions(golden, config.head.predictors.main, MAPS), read_targets(golden)
    (criterion,) = instantiate(config.criteria)
    decision = criterion.assign(predictions, targets, progress=0.0)
    check_simota_costs(golden, variant, criterion, predictions.detach(), targets)
    pairs, num_priors = decision.assignment.pairs, len(predictions.priors)
    golden.exact(f"{variant}.matched", matched_in_image(decision.assignment, targets, num_priors))
    iou = torch.zeros(targets.num_images, num_priors)
    iou[pairs.image, pairs.prior] = decision.assignment.target
    golden.close_to_max(f"{variant}.iou_target", iou, 1e-4)
    golden.exact(f"{variant}.num_pos", decision.assignment.num_positives)

    terms = criterion(predictions, targets, progress=0.0)
    golden.close(f"{variant}.avg_factor", terms["loss_cls"].normaliser.clamp(min=1), rtol=1e-5)
    losses = reduce_losses(terms)
    for key, loss in losses.items():
        golden.close(f"{variant}.{key}", loss, rtol=1e-5)
    golden.close(f"{variant}.total", sum(losses.values()), rtol=1e-5)
    sum(losses.values()).backward()
    check_gradients(golden, predictions, ("cls", "ltrb", "obj"), f"{variant}.")
    # YOLOX keeps all detections; its command line has these two settings.
    config.inference.max_detections = 10**6
    for key, threshold, nms in (("det", 0.01, 0.65), ("detstrict", 0.25, 0.45)):
        if f"{variant}.{key}_boxes_0" in golden:
            if key == "detstrict":
                config.inference.update(score_threshold=threshold, nms_threshold=nms)
            check_detections(golden, config, f"{variant}.{key}_")


def check_simota_costs(
    golden: GoldenFile, variant: str, criterion: Criterion, predictions: DensePredictions, targets: Targets
) -> None:
    """What is looked at for every pair: valid locations, costs of those that are the ground truth's own, and k."""
    matcher, priors = criterion.matcher, predictions.priors
    _, _, valid = matcher.regions(priors, targets)
    pairs: Pairs = everywhere(torch.arange(len(targets)), targets, len(priors))
    base = background_cross_entropy(predictions, criterion.score)
    cost, iou = matcher.cost(predictions, targets, criterion.score, base, pairs)
    is_valid = valid[pairs.image, pairs.prior]
    k = matcher.dynamic_k(iou.masked_fill(~is_valid, 0), pairs, len(targets))
    own = matcher.is_own(pairs, priors, targets).view(-1, len(priors))

    def of_image(x: Tensor, i: int) -> Tensor:
        return x.view(-1, len(priors))[targets.image == i]

    for i in range(targets.num_images):
        golden.exact(f"{variant}.valid_{i}", valid[i])
        golden.exact(f"{variant}.dynamic_k_{i}", k[targets.image == i])
        key = f"{variant}.cost_{i}"
        expected, compared = golden.tensor(key), own[targets.image == i]
        error = ((of_image(cost, i) - expected).abs() / (1 + expected.abs()))[compared]
        same = torch.equal(compared, of_image(is_valid, i) & (expected < PENALISED))
        golden.record(key, (error.max() if len(error) else 0.0) if same else torch.inf, 2e-4)


def check_head(golden: GoldenFile) -> None:
    """Outputs of the head with the file's weights, and gradients."""
    config = model_zoo.get_config(OTA).model
    weights = {key.removeprefix("w."): golden.tensor(key) for key in golden if key.startswith("w.")}
    config.num_classes = len(weights["cls_score.bias"])
    config.backbone.out_channels = weights["cls_score.weight"].shape[1]
    num_convs = sum(key.startswith("cls_subnet.") and key.endswith(".weight") for key in weights) // 2
    config.head.cls_tower.num_convs = config.head.box_tower.num_convs = num_convs
    head = instantiate(config.head)
    features = [x.requires_grad_() for x in golden.levels("feat")]
    state = {"scales": torch.cat([weights.pop(f"scales.{level}.scale").view(1) for level in range(len(features))])}
    names = {}
    for key, weight in weights.items():
        module, _, rest = key.partition(".")
        names[key] = f"{MODULES[module]}.{rest}"
        state[names[key]] = weight
    head.load_state_dict(state)
    maps = head(features)["main"].maps
    total = torch.zeros(())
    for key in ("cls", "ltrb", "iou"):
        for level, x in enumerate(maps[MAPS[key]]):
            golden.close_to_max(f"{key}_l{level}", x, 1e-4)
            total = total + (golden.tensor(f"up_{key}_l{level}") * x).sum()
    total.backward()
    for level, x in enumerate(features):
        if f"grad_feat_l{level}" in golden:
            golden.close_to_max(f"grad_feat_l{level}", x.grad, 1e-4)
    parameters = dict(head.named_parameters())
    for key in golden:
        if key.startswith("gw.scales."):
            golden.close_to_max(key, head.scales.grad[int(key.split(".")[2])].view(golden.array(key).shape), 1e-4)
        elif key.startswith("gw."):
            golden.close_to_max(key, parameters[names[key.removeprefix("gw.")]].grad, 1e-4)
