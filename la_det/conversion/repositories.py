"""Names of the parameters in published checkpoints of the official repositories, and their names here.

A repository has its framework's names for backbone, pyramid and towers, and its own names for its head. Rules are
applied to a key one after the other, each at the key's beginning. `head.scales[2]` is element 2 of the vector
`head.scales`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

from torch import Tensor

from la_det.checkpoint.initial_weights import detectron2_name
from la_det.model_zoo.records import Record

Rule = tuple[str, "str | Callable[[re.Match], str]"]
BRANCH = "head.predictors.main."


@dataclass(frozen=True)
class Repository:
    """The checkpoints of a repository, or those of one of its heads.

    Attributes:
        name: name of the repository on GitHub.
        head: prefix of some keys of its head; if possible, no other repository has this prefix.
        rules: (regular expression, replacement) from its keys to ours.
        constants: (regular expression, value of a match) for keys of constants that la_det computes.
        values: (end of our key, change of the value) for parameters that are stored in another form.
        configs: pattern of the names of its configs, for a repository whose files have several heads.
        recipes_of: the repository whose recipes it trained, if it is another one.
        box_offset: 1 if its networks count boxes pixel-inclusively, see `Priors`.
        overrides: options of every config that its weights need, key -> value.
    """

    name: str
    head: str
    rules: tuple[Rule, ...]
    constants: tuple[tuple[str, Callable[[re.Match], object]], ...] = ()
    values: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()
    configs: str = "*"
    recipes_of: str | None = None
    box_offset: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)

    def rename(self, key: str) -> str:
        """Our name of a parameter. A name to which no rule applies stays."""
        for pattern, replacement in self.rules:
            key = re.sub(f"^{pattern}", replacement, key)
        return key

    def published(self, record: Record) -> bool:
        """Whether the weights of the record's config are the repository's."""
        source = f"https://github.com/{self.recipes_of or self.name}"
        of_here = record.convertible and record.source == source
        return of_here and fnmatch(record.name, self.configs)


def numbered(name: str, add: int) -> Callable[[re.Match], str]:
    """Replacement for layers that are counted from another number: `name` and the match's number + `add`."""
    return lambda match: f"{name}{int(match[1]) + add}"


def tower(name: str) -> Callable[[re.Match], str]:
    """Replacement for MMDetection's `<block>.conv` and `<block>.gn`, or 0 and 1. Here a block has three layers."""
    return lambda match: f"{name}.{3 * int(match[1]) + (match[2] in ('gn', '1'))}"


# cvpods: its backbone and pyramid have Detectron2's names
CVPODS: tuple[Rule, ...] = (
    (r"head\.cls_subnet", "head.cls_tower"),
    (r"head\.bbox_subnet", "head.box_tower"),
    (r"head\.scales\.(\d)\.scale$", r"head.scales[\1]"),
    (r"head\.cls_score", BRANCH + "logits"),
    (r"head\.bbox_pred", BRANCH + "boxes"),
)
DEFCN = Repository(
    "Megvii-BaseDetection/DeFCN",
    head="head.",
    rules=(
        *CVPODS,
        (r"head\.centerness", BRANCH + "quality"),
        (r"head\.max3d", BRANCH + "max_filtering"),
        (r"head\.filter", BRANCH + "filter"),
    ),
    # The square anchors of 4 strides around the location, of the Anchor variant.
    constants=((r"anchor_generator\.cell_anchors\.(\d)$", lambda match: _square(0, 2 * 8 * 2 ** int(match[1]))),),
)
LLA = Repository(
    "Megvii-BaseDetection/LLA",
    head="head.",
    rules=(*CVPODS, (r"head\.ious_pred", BRANCH + "quality")),
    configs="LLA/lla_r*",
)
OTA = replace(LLA, name="Megvii-BaseDetection/OTA", configs="*")
LLA_BASELINES = replace(DEFCN, name=LLA.name, configs="LLA/lla_[!r]*")
AUTOASSIGN = Repository(
    "Megvii-BaseDetection/AutoAssign",
    head="head.obj_score",
    rules=(*CVPODS, (r"head\.obj_score", BRANCH + "quality"), (r"(mu|sigma)$", r"criteria.0.matcher.\1")),
)

# Detectron2
ONENET = Repository(
    "PeizeSun/OneNet",
    head="head.cls_conv_module",
    rules=(
        (r"head\.cls_conv_module", "head.cls_tower"),
        (r"head\.reg_conv_module", "head.box_tower"),
        (r"head\.scales\.(\d)\.scale$", r"head.scales[\1]"),
        (r"head\.cls_score", BRANCH + "logits"),
        (r"head\.(?:ltrb|bbox)_pred", BRANCH + "boxes"),
    ),
    constants=(
        (r"head\.anchor_generator\.cell_anchors\.(\d)$", lambda match: _retinanet_anchors(8 * 2 ** int(match[1]))),
    ),
)

# maskrcnn-benchmark
ATSS = Repository(
    "sfzhang15/ATSS",
    head="rpn.head.",
    rules=(
        (r"backbone\.body\.(?:stem\.)?(.*)", lambda match: f"backbone.bottom_up.{detectron2_name(match[1])}"),
        (r"(backbone\.bottom_up\..*)\.conv2\.conv\.", r"\1.conv2."),  # deformable
        (r"backbone\.fpn\.fpn_inner(\d)", numbered("backbone.fpn_lateral", 1)),
        (r"backbone\.fpn\.fpn_layer(\d)", numbered("backbone.fpn_output", 1)),
        (r"backbone\.fpn\.top_blocks", "backbone.top_block"),
        (r"rpn\.head\.cls_tower", "head.cls_tower"),
        (r"rpn\.head\.bbox_tower", "head.box_tower"),
        (r"(head\..*_tower\.\d+)\.conv\.", r"\1."),  # deformable
        (r"rpn\.head\.scales\.(\d)\.scale$", r"head.scales[\1]"),
        (r"rpn\.head\.cls_logits", BRANCH + "logits"),
        (r"rpn\.head\.bbox_pred", BRANCH + "boxes"),
        (r"rpn\.head\.centerness", BRANCH + "quality"),
    ),
    # The anchor at the first cell, pixel-inclusive: its last pixel is part of it.
    constants=(
        (
            r"rpn\.anchor_generator\.cell_anchors\.(\d)$",
            lambda match: _square(4 * 2 ** int(match[1]), 4 * 8 * 2 ** int(match[1]) - 0.5),
        ),
    ),
    # Its frozen norms have no eps; Detectron2's add 1e-5 to the variance.
    values=((".running_var", lambda variance: variance - 1e-5),),
    box_offset=1,
)
DYNAMIC_ATSS = replace(ATSS, name="ZTX-100/DLA-Combined-IoUs")
PAA = replace(
    ATSS,
    name="kkhoot/PAA",
    head="rpn.head.iou_pred",
    rules=(*ATSS.rules, (r"rpn\.head\.iou_pred", BRANCH + "quality")),
)

# MMDetection
MMDETECTION: tuple[Rule, ...] = (
    # Deformable: conv2_offset in files of old versions, conv2.conv_offset in others.
    (r"(.*?\bconv\d?)(?:\.conv)?_offset\.", r"\1.offset."),
    (r"backbone\.(.*)", lambda match: f"backbone.bottom_up.{detectron2_name(match[1])}"),
    (r"neck\.lateral_convs\.(\d)\.conv", numbered("backbone.fpn_lateral", 3)),
    (r"neck\.fpn_convs\.([012])\.conv", numbered("backbone.fpn_output", 3)),
    (r"neck\.fpn_convs\.([34])\.conv", numbered("backbone.top_block.p", 3)),
    (r"bbox_head\.cls_convs\.(\d)\.(conv|gn)", tower("head.cls_tower")),
    (r"bbox_head\.reg_convs\.(\d)\.(conv|gn)", tower("head.box_tower")),
    (r"bbox_head\.scales\.(\d)\.scale$", r"head.scales[\1]"),
)
# Files of early versions call the last layers of FCOS fcos_cls, fcos_reg and fcos_centerness.
MMDETECTION_FCOS = Repository(
    "open-mmlab/mmdetection",
    head="bbox_head.",
    rules=(
        *MMDETECTION,
        (r"bbox_head\.(?:conv|fcos)_cls", BRANCH + "logits"),
        (r"bbox_head\.(?:conv|fcos)_reg", BRANCH + "boxes"),
        (r"bbox_head\.(?:conv|fcos)_centerness", BRANCH + "quality"),
    ),
    configs="FCOS/*",
)
MMDETECTION_ATSS = replace(
    MMDETECTION_FCOS,
    head="bbox_head.atss_",
    rules=(
        *MMDETECTION,
        (r"bbox_head\.atss_cls", BRANCH + "logits"),
        (r"bbox_head\.atss_reg", BRANCH + "boxes"),
        (r"bbox_head\.atss_centerness", BRANCH + "quality"),
    ),
    configs="ATSS/*",
)
MMDETECTION_PAA = replace(MMDETECTION_ATSS, configs="PAA/*")
MMDETECTION_AUTOASSIGN = replace(
    MMDETECTION_FCOS,
    configs="AutoAssign/*",
    head="bbox_head.center_prior.",
    rules=(
        *MMDETECTION_FCOS.rules,
        (r"bbox_head\.center_prior\.mean", "criteria.0.matcher.mu"),
        (r"bbox_head\.center_prior\.sigma", "criteria.0.matcher.sigma"),
    ),
)
DATE = Repository(
    "YiqunChen1999/date",
    head="bbox_head.",
    rules=(
        *MMDETECTION,
        (r"bbox_head\.predictors\.0\.", "head.predictors.one_to_one."),
        (r"bbox_head\.predictors\.1\.", "head.predictors.one_to_many."),
        (r"(head\.predictors\.\w+)\.conv_cls", r"\1.logits"),
        (r"(head\.predictors\.\w+)\.conv_reg", r"\1.boxes"),
        (r"(head\.predictors\.\w+)\.conv_ctr", r"\1.quality"),
        (r"(head\.predictors\.\w+)\.max3d", r"\1.max_filtering"),
    ),
)
DW = Repository(
    "strongwolf/DW",
    head="bbox_head.center_prior.",  # without it, the parameters can be those of MMDetection's FCOS
    rules=(
        *MMDETECTION,
        (r"bbox_head\.conv_cls", BRANCH + "logits"),
        (r"bbox_head\.conv_reg", BRANCH + "boxes"),
        (r"bbox_head\.conv_centerness", BRANCH + "quality"),
        (r"bbox_head\.reg_offset", BRANCH + "refinement.offset"),
    ),
    constants=(
        (r"bbox_head\.center_prior\.mean$", lambda match: 0.0),
        (r"bbox_head\.center_prior\.sigma$", lambda match: 1.11),
    ),
)
O2F = Repository(
    "strongwolf/o2f",
    head="bbox_head.",
    rules=(
        *MMDETECTION,
        (r"bbox_head\.conv_cls", BRANCH + "logits"),
        (r"bbox_head\.conv_reg", BRANCH + "boxes"),
        (r"bbox_head\.conv_(centerness|quality)", BRANCH + "quality"),
        (r"bbox_head\.centerness_convs\.(\d)\.(conv|gn)", tower(BRANCH + "quality_tower")),
        (r"bbox_head\.controller", BRANCH + "controller"),
        (r"bbox_head\.refine", "head.image_branches.mask_features.refine"),
        (r"bbox_head\.mask_tower\.4\.", "head.image_branches.mask_features.tower.12."),
        (r"bbox_head\.mask_tower\.(\d)\.([01])", tower("head.image_branches.mask_features.tower")),
        (r"bbox_head\.seg_head", "head.image_branches.semantic"),
        (r"bbox_head\.seg_out", "head.image_branches.semantic.6"),
    ),
    constants=((r"bbox_head\.sizes_of_interest$", lambda match: [64, 128, 256, 512, 1024]),),
)
# The T-head. Eight of its convolutions have other names in MMDetection.
TOOD_HEAD: tuple[Rule, ...] = (
    (r"bbox_head\.inter_convs\.(\d)\.(conv|gn)", tower(BRANCH + "tower")),
    (r"bbox_head\.cls_decomp\.", BRANCH + "cls_decomposition."),
    (r"bbox_head\.reg_decomp\.", BRANCH + "box_decomposition."),
    (r"(head\..*)\.reduction_conv\.conv", r"\1.reduction"),
    (r"(head\..*)\.reduction_conv\.gn", r"\1.norm"),
    (r"bbox_head\.tood_cls", BRANCH + "logits"),
    (r"bbox_head\.tood_reg", BRANCH + "boxes"),
)
TOOD = Repository(
    "fcjian/TOOD",
    head="bbox_head.tood_",
    rules=(
        *MMDETECTION,
        *TOOD_HEAD,
        (r"(head\..*)\.la_conv1", r"\1.attention.0"),
        (r"(head\..*)\.la_conv2", r"\1.attention.2"),
        (r"bbox_head\.cls_prob_conv1", BRANCH + "quality.0"),
        (r"bbox_head\.cls_prob_conv2", BRANCH + "quality.2"),
        (r"bbox_head\.reg_offset_conv1", BRANCH + "offset.0"),
        (r"bbox_head\.reg_offset_conv2", BRANCH + "offset.2"),
    ),
)
MMDETECTION_TOOD = replace(
    TOOD,
    name=MMDETECTION_FCOS.name,
    recipes_of=TOOD.name,
    rules=(
        *MMDETECTION,
        *TOOD_HEAD,
        (r"(head\..*)\.layer_attention", r"\1.attention"),
        (r"bbox_head\.cls_prob_module", BRANCH + "quality"),
        (r"bbox_head\.reg_offset_module", BRANCH + "offset"),
    ),
    # Its inference ranks pairs instead of locations, does not clip, and mends boxes whose sides have changed places.
    overrides={
        "model.head.predictors.main.repair": True,
        "model.inference.clip": False,
        "model.inference.candidates._target_": "la_det.modeling.candidate_rules.TopPairs",
        "model.inference.candidates.cap": False,
    },
)

# Its auxiliary branch, the one that only training runs, is in the files, too.
AUXILIARY = "head.predictors.auxiliary."
DDQ = Repository(
    "jshilong/DDQ",
    head="bbox_head.aux_conv_",
    rules=(
        (r"neck\.0\.", "neck."),
        (r"bbox_head\.scales\.(\d)\.scale$", BRANCH + r"scales[\1]"),
        (r"bbox_head\.aux_scales\.(\d)\.scale$", AUXILIARY + r"scales[\1]"),
        *MMDETECTION,
        (r"bbox_head\.conv_", BRANCH),
        (r"bbox_head\.objectness", BRANCH + "objectness"),
        (r"bbox_head\.aux_conv_", AUXILIARY),
        (r"(head\.predictors\.\w+)\.cls", r"\1.logits"),
        (r"(head\.predictors\.\w+)\.reg", r"\1.boxes"),
        (r"(head\.predictors\.\w+)\.objectness\.0", r"\1.quality_tower.0"),
        (r"(head\.predictors\.\w+)\.objectness\.2", r"\1.quality"),
    ),
)

REPOSITORIES = (
    DEFCN,
    LLA,
    OTA,
    LLA_BASELINES,
    AUTOASSIGN,
    ONENET,
    ATSS,
    DYNAMIC_ATSS,
    PAA,
    MMDETECTION_FCOS,
    MMDETECTION_ATSS,
    MMDETECTION_PAA,
    MMDETECTION_AUTOASSIGN,
    MMDETECTION_TOOD,
    DATE,
    DW,
    O2F,
    TOOD,
    DDQ,
)


def _square(center: float, half_side: float) -> list[list[float]]:
    return [[center - half_side] * 2 + [center + half_side] * 2]


def _retinanet_anchors(stride: int) -> list[list[float]]:
    """Detectron2's, around the origin: three sizes, and for each the ratios of height and width 0.5, 1 and 2."""
    half_sides = [
        (2 * stride * 2 ** (octave / 3) / ratio**0.5, 2 * stride * 2 ** (octave / 3) * ratio**0.5)
        for octave in range(3)
        for ratio in (0.5, 1.0, 2.0)
    ]
    return [[-x, -y, x, y] for x, y in half_sides]
