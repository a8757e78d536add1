"""Golden files of whole official models: seeded official weights -> converter -> the zoo's config -> detections."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import Tensor

from la_det import model_zoo
from la_det.checkpoint.recipe import apply_overrides
from la_det.conversion.convert import find_fit
from la_det.modeling import AssignmentDetector
from la_det.modeling.query_inference import QueryInference
from la_det.structures import DensePredictions
from la_det.testing.golden import GoldenFile, pair_up
from la_det.testing.seeded_weights import find_manifest, seeded_state_dict, zoo_config

# Tolerances
FPN = 1e-5  # relative to the level's largest value
LOGITS = 1e-4
BOXES = 0.01  # pixels
SCORES = 1e-4
MASKS = 1e-3  # share of the pixels
ONLY, O2O, O2M, AUXILIARY = "main", "one_to_one", "one_to_many", "auxiliary"
# Kind of a level's map in the files -> branch, and la_det's name of the map.
MAPS = {
    "cls": (ONLY, "logits"),
    "box": (ONLY, "boxes"),
    "reg": (ONLY, "boxes"),
    "centerness": (ONLY, "quality"),
    "iou": (ONLY, "quality"),
    "quality": (ONLY, "quality"),
    "filter": (ONLY, "filter"),
    "o2o_cls_filtered": (O2O, "logits"),
    "o2o_box": (O2O, "boxes"),
    "o2o_filter": (O2O, "filter"),
    "fcos_cls": (O2M, "logits"),
    "fcos_box": (O2M, "boxes"),
    "fcos_ctr": (O2M, "quality"),
    "retina_cls": (O2M, "logits"),
    "retina_box": (O2M, "boxes"),
    "aux_cls": (AUXILIARY, "logits"),
    "aux_box": (AUXILIARY, "boxes"),
    "aux_quality": (AUXILIARY, "quality"),
}
# Kind of a map in the files -> layers of the head's predictors, the first existing of which gives it.
LAYERS = {
    "o2o_cls": ("one_to_one.logits",),
    "reg_raw": ("main.boxes",),
    "reg_offset": ("main.refinement.offset", "main.offset"),
}
# Kind of a map with only some channels -> key in the files of the channels' numbers.
CHANNELS = {"retina_cls": ("retina_cls_channels",), "fpn_probe": ("fpn_probe_channels",)}
CLASSES = ("cls_channels", "classes_kept", "kept_classes")


@dataclass
class Run:
    """What a model computes for the images of a file.

    Attributes:
        inputs: inputs as for Detectron2's models.
        x: [N, 3, H, W] the network's input.
        features: features of the pyramid's levels.
        predictions: name of each branch -> its predictions.
        layers: kind in `LAYERS` -> outputs of the layer.
    """

    model: AssignmentDetector
    inputs: list[dict[str, Tensor]]
    x: Tensor
    features: list[Tensor]
    predictions: dict[str, DensePredictions]
    layers: dict[str, list[Tensor]]

    @property
    def inferred(self) -> DensePredictions:
        """Predictions of the branch that inference reads."""
        return self.predictions[self.model.inference_branch]

    def detect(self, score_threshold: float) -> list[Instances]:
        """Detections of each image."""
        self.model.inference.score_threshold = score_threshold
        return [output["instances"] for output in self.model(self.inputs)]


@torch.no_grad()
def check(golden: GoldenFile) -> None:
    """Compares everything in a file."""
    run = run_model(golden, build_model(golden))
    check_settings(golden, run)
    check_statistics(golden, run)
    for key in golden:
        level = re.search(r"(?:^|_)l(\d)(?=_|$)", key)
        if level:
            check_map(golden, run, key, key.replace(level[0], "").strip("_"), int(level[1]))
    if "mask_feat" in golden:
        check_image_maps(golden, run)
    check_all_detections(golden, run)


def build_model(golden: GoldenFile) -> AssignmentDetector:
    """The zoo's model with the converted weights of the file's manifest."""
    with torch.device("cpu"):  # on which checkpoints are loaded
        manifest = find_manifest(golden.path)
        state = seeded_state_dict(manifest)
        fit = find_fit(str(golden.path), state, zoo_config(manifest))
        model = instantiate(apply_overrides(model_zoo.get_config(fit.config), fit.overrides).model)
        model.load_state_dict(fit.weights(state), strict=True)
    return model.to(golden.device).eval()


def run_model(golden: GoldenFile, model: AssignmentDetector) -> Run:
    """The model's outputs for the images of the file, which are RGB."""
    images = [golden.tensor(f"image_{i}").permute(2, 0, 1) for i in range(len(golden.array("image_sizes")))]
    inputs = [{"image": x.flip(0) if model.input_format == "BGR" else x} for x in images]
    layers: dict[str, list[Tensor]] = {}
    modules = dict(model.head.predictors.named_modules())
    for kind, names in LAYERS.items():
        for name in [name for name in names if name in modules][:1]:
            outputs = layers.setdefault(kind, [])
            modules[name].register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output))
    x = model.preprocess_image(inputs).tensor
    features = model.backbone(x)
    features = [features[name] for name in model.in_features]
    return Run(model, inputs, x, features, model.head(features), {key: list(maps) for key, maps in layers.items()})


def check_settings(golden: GoldenFile, run: Run) -> None:
    """Compares settings of pre-processing and inference with those of the config."""
    model, inference, priors = run.model, run.model.inference, run.inferred.priors
    found = {
        "num_images": len(run.inputs),
        "num_classes": model.num_classes,
        "padded_size": torch.tensor(run.x.shape[-2:]),
        "size_divisibility": model.backbone.size_divisibility,
        "strides": torch.tensor(priors.level_strides),
        "location_offset": priors.offset,
        "box_offset": priors.box_offset,
        "nms_threshold": 1.0 if inference.nms_threshold is None else inference.nms_threshold,
        "nms_iou": inference.nms_threshold or 0.0,
        **dict.fromkeys(("pixel_mean", "pixel_mean_bgr"), model.pixel_mean.flatten()),
        **dict.fromkeys(("pixel_std", "pixel_std_bgr"), model.pixel_std.flatten()),
        **dict.fromkeys(("official_score_threshold", "official_score_thr"), inference.score_threshold),
        **dict.fromkeys(("pre_nms_top_n", "nms_pre", "topk_candidates"), inference.candidate_rule.topk),
        **dict.fromkeys(("max_detections", "max_dets", "max_per_img"), inference.max_detections),
    }
    if isinstance(inference, QueryInference):  # the NMS of the queries, and how many locations it sees of each level
        found |= {"nms_iou": inference.queries.nms_threshold, "nms_pre": inference.queries.topk}
    if re.search("onenet_.*crowdhuman", golden.name):  # stated is COCO's number of classes; the weights have one
        golden.ignore("num_classes")
        del found["num_classes"]
    for key, value in found.items():
        if key in golden:
            golden.close(key, value, atol=1e-7)
    if "input_order" in golden:
        golden.record("input_order", float(golden.array("input_order").item() != model.input_format), 0.0)
    golden.ignore("score_threshold_margin", "score_thr_margin")


def check_statistics(golden: GoldenFile, run: Run) -> None:
    """Compares means and standard deviations of the network's input and of the pyramid."""
    image, channel = (1, 2, 3), (2, 3)
    for key in ("input_mean", "input_mean_bgr"):
        if key in golden:
            golden.close(key, run.x.mean(image if golden.array(key).ndim == 1 else channel), atol=LOGITS)
    for key, correction in (("input_std", 1), ("input_std_bgr", 0)):
        if key in golden:
            golden.close(key, run.x.std(channel, correction=correction), atol=LOGITS)
    pyramid = {
        "fpn_mean": [x.mean() for x in run.features],
        "fpn_std": [x.std(correction=0) for x in run.features],
        "fpn_channel_mean": [x.mean((0, 2, 3)) for x in run.features],
        "fpn_channel_std": [x.std((0, 2, 3), correction=0) for x in run.features],
    }
    for key, levels in pyramid.items():
        if key in golden:
            golden.close_to_max(key, torch.stack(levels), FPN)
    if "decoded_boxes" in golden:
        boxes = run.inferred.boxes()
        if run.model.inference.clip:
            limits = [run.inputs[i]["image"].shape[:0:-1] * 2 for i in range(len(boxes))]  # (w, h, w, h)
            boxes = boxes.clamp(min=0).minimum(boxes.new_tensor(limits).unsqueeze(1))
        golden.close("decoded_boxes", boxes, atol=BOXES)


def check_map(golden: GoldenFile, run: Run, key: str, kind: str, level: int) -> None:
    """Compares one quantity of one level."""
    if kind.startswith("fpn_"):
        golden.close_to_max(key, _channels(golden, kind, run.features[level]), FPN)
    elif kind in LAYERS:
        x = run.layers[kind][level]
        golden.close(key, _channels(golden, kind, x), atol=LOGITS)
    elif kind in MAPS:
        branch, name = MAPS[kind]
        predictions = run.predictions[branch]
        x, codec = predictions.maps[name][level], predictions.codec
        if name == "boxes" and getattr(codec, "in_strides", False):
            x = x * predictions.priors.level_strides[level]
        distances = name == "boxes" and hasattr(codec, "in_strides")
        golden.close(key, _channels(golden, kind, x), atol=BOXES if distances else LOGITS)
    elif kind in ("cls_mean", "cls_std"):
        x = run.inferred.maps["logits"][level]
        golden.close(key, x.mean() if kind == "cls_mean" else x.std(correction=0), atol=LOGITS)
    elif kind == "controller":
        x = run.inferred.maps["controller"][level].flatten(2)
        golden.close(key, x[..., golden.tensor(f"controller_index_l{level}")], atol=LOGITS)
    elif kind in ("score_max", "cls_max"):
        golden.close(key, _class_scores(run, kind, level).amax(1), atol=SCORES)
    elif kind in ("score_argmax", "cls_argmax"):  # another class with as high a score is right, too
        x = _class_scores(run, kind, level)
        golden.record(key, (x.amax(1) - x.gather(1, golden.tensor(key).unsqueeze(1)).squeeze(1)).max(), SCORES)


def _class_scores(run: Run, kind: str, level: int) -> Tensor:
    """Probabilities (for kinds `cls_...` logits) of all classes: [N, K, h, w]."""
    if kind.startswith("cls"):
        return run.inferred.maps["logits"][level]
    return run.model.inference.score.dense(run.inferred, level).squeeze(1)


def _channels(golden: GoldenFile, kind: str, x: Tensor) -> Tensor:
    """The channels of a map that are in the file."""
    if kind in ("fpn_first4", "fpn_sample"):
        return x[:, :4]
    for key in CHANNELS.get(kind, CLASSES if "cls" in kind else ()):
        if key in golden:
            return x[:, golden.tensor(key)]
    return x


def check_image_maps(golden: GoldenFile, run: Run) -> None:
    """Compares CondInst's maps of the whole image."""
    maps = run.inferred.image_maps
    golden.close("mask_feat", maps["mask_features"], atol=LOGITS)
    golden.close("sem_logits", maps["semantic"][:, golden.tensor("kept_classes")], atol=LOGITS)


def check_all_detections(golden: GoldenFile, run: Run) -> None:
    """Compares detections with the official score threshold, and with a threshold in a gap of the scores."""
    prefix = "det_" if "det_boxes_0" in golden else ""
    raised = next(golden.number(key) for key in ("score_threshold", "score_thr") if key in golden)
    gaps = np.atleast_1d(golden.array("official_cut_gap")) if "official_cut_gap" in golden else np.array([np.inf])
    for i, found in enumerate(run.detect(run.model.inference.score_threshold)):
        check_detections(golden, run, f"official_{prefix}", i, found, gaps[i % len(gaps)] >= golden.slack * SCORES)
    for i, found in enumerate(run.detect(raised)):
        index, found = check_detections(golden, run, prefix, i, found)
        if f"masks_{i}" in golden:
            check_masks(golden, run, i, index, found)


def check_detections(
    golden: GoldenFile, run: Run, prefix: str, i: int, found: Instances, clear_cut: bool = True
) -> tuple[Tensor, Instances]:
    """Compares detections of image i. Returns which of the file's were compared, and la_det's in the same order.

    Args:
        clear_cut: whether the threshold lies in a gap of scores. If not, detections near the lowest score may differ.
    """
    keys = [f"{prefix}{name}_{i}" for name in ("boxes", "scores", "classes")]
    boxes, scores, classes = (golden.tensor(key) for key in keys)
    boxes[:, 2:] += run.inferred.priors.box_offset
    expected = Boxes(boxes)
    expected.clip(found.image_size)  # as Detectron2's post-processing does, which leaves boxes without area out
    boxes, compared = expected.tensor, expected.nonempty()
    if not clear_cut:
        lowest = scores.min() + golden.slack * SCORES
        compared &= scores > lowest
        found = found[found.scores > lowest]
    boxes, scores, classes = boxes[compared], scores[compared], classes[compared]
    if len(found) != len(boxes):
        raise ValueError(f"{len(found)} detections for {keys[0]} instead of {len(boxes)}")
    actual = found.pred_boxes.tensor, found.scores, found.pred_classes
    found = found[pair_up(boxes, scores, classes, *actual, score_atol=golden.slack * SCORES)]
    _record(golden, keys[0], found.pred_boxes.tensor - boxes, BOXES)
    _record(golden, keys[1], found.scores - scores, SCORES)
    _record(golden, keys[2], found.pred_classes - classes, 0.0)
    return compared.nonzero().squeeze(1), found


def check_masks(golden: GoldenFile, run: Run, i: int, index: Tensor, found: Instances) -> None:
    """Compares masks of the detections of image i, which are the file's detections at `index`."""
    priors, pixels = run.inferred.priors, found.pred_masks[0].numel()
    _record(golden, f"points_{i}", priors.points[found.priors] - golden.tensor(f"points_{i}")[index], 0.0)
    strides = golden.tensor(f"instance_strides_{i}")
    _record(golden, f"instance_strides_{i}", priors.strides[found.priors] - strides[index], 0.0)
    area = golden.tensor(f"mask_area_{i}")
    _record(golden, f"mask_area_{i}", found.pred_masks.flatten(1).sum(1) - area[index], MASKS * pixels)
    stored = golden.tensor(f"mask_index_{i}")
    here = torch.isin(stored, index)
    found = found[torch.searchsorted(index, stored[here])]
    predictions = run.inferred.of_images(torch.tensor([i]))
    logits = run.model.mask_inference.logits(predictions, found.priors.unsqueeze(0))[0]
    _record(golden, f"mask_logits_{i}", logits - golden.tensor(f"mask_logits_{i}")[here], 10 * LOGITS)
    differ = found.pred_masks != golden.tensor(f"masks_{i}")[here].bool()
    golden.record(f"masks_{i}", differ.float().mean(), MASKS)


def _record(golden: GoldenFile, key: str, difference: Tensor, tolerance: float) -> None:
    golden.record(key, difference.abs().max() if difference.numel() else 0.0, tolerance)
