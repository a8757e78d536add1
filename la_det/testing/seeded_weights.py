"""Stand-ins for official weights, with the official names and shapes, and with values computed from the names.

A manifest is a JSON file with the keys and shapes of an official state dict, the adjustments of some values, and the
place of the model's config in the official repository.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from la_det import model_zoo
from la_det.testing.golden import NotBuilt

_MANIFESTS = Path(__file__).resolve().parents[2] / "tests" / "data" / "checkpoints"
# "repository/official config" (with _ for every dot) -> name of the config here, without its project.
_CONFIGS = (
    (r"DeFCN/(\w+?)_res50_fpn_(\w+)_800size_(\dx_ms|30k)(\w*)", r"\1\4_r50_fpn_\3_\2"),
    (r"LLA/lla_res50_fpn_(\w+)_800size_30k", r"lla_r50_fpn_30k_\1"),
    (r"LLA/(fcos|atss)_res50_fpn_(\w+)_800size_30k", r"lla_\1_r50_fpn_30k_\2"),
    (r"(?:ATSS|DLA-Combined-IoUs|PAA)/(\w+)_([RX])_(\w+)_FPN_1x", r"\1_\2\3_fpn_1x_coco"),
    (r"(?:ATSS|DLA-Combined-IoUs|PAA)/(\w+)_([RX])_(\w+)_FPN_2x", r"\1_\2\3_fpn_2x_ms_coco"),
    (r"PAA/paa_R_(\d+)_FPN_1_5x", r"paa_r\1_fpn_135k_coco"),
    (r"AutoAssign/auto_assign_res(\d+)_fpn_coco_800size_1x", r"autoassign_r\1_fpn_1x_coco"),
    (r"date/date_(r\d+)_12e_8x2_([fr])\w+?_poto(_3dmf)?_coco", r"date_\2\3_\1_fpn_12ep_coco"),
    (r"date/date_(r\d+)_36e_8x2_([fr])\w+?_poto(_3dmf)?_coco", r"date_\2\3_\1_fpn_36ep_ms_coco"),
    (r"date/date_(r\d+)_30k_8x2_([fr])\w+?_poto_crowdhuman", r"date_\2_\1_fpn_30k_crowdhuman"),
    (r"DW/dw_(r\d+)_fpn(_worefine)?_1x_coco", r"dw\2_\1_fpn_1x_coco"),
    (r"DW/dw_(r\d+)_fpn(_worefine)?_mstrain_2x_coco", r"dw\2_\1_fpn_2x_ms_coco"),
    (r"DW/dw_(r\d+)_fpn_dconv_c3-c5_mstrain_2x_coco", r"dw_dcnv2_\1_fpn_2x_ms_coco"),
    (r"o2f/(condinst_)?(r\d+)_1x", r"o2f_\1\2_fpn_1x_coco"),
    (r"o2f/(condinst_)?(r\d+)_3x(_ms)?", r"o2f_\1\2_fpn_3x_ms_coco"),
    (r"mmdetection/fcos_(r\d+)-caffe_fpn_gn-head_1x_coco", r"fcos_mmdet_\1_fpn_1x_coco"),
    (
        r"mmdetection/fcos_(r\d+)-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco",
        r"fcos_mmdet_center_normbbox_\1_fpn_1x_coco",
    ),
    (r"mmdetection/atss_(r\d+)_fpn_1x_coco", r"atss_mmdet_\1_fpn_1x_coco"),
    (r"OTA/ota_res50_fpn_coco_800size_1x", r"ota_r50_fpn_1x_coco"),
    (r"OneNet/onenet_(fcos|retinanet)_res50", r"onenet_\1_r50_fpn_270k_ms_coco"),
    (r"OneNet/onenet_(fcos|retinanet)_res50_crowdhuman", r"onenet_\1_r50_fpn_47k_crowdhuman"),
    (r"mmdetection/paa_(r\d+)_fpn_1x_coco", r"paa_mmdet_\1_fpn_1x_coco"),
    (r"mmdetection/autoassign_(r\d+)-caffe_fpn_1x_coco", r"autoassign_mmdet_\1_fpn_1x_coco"),
    (r"(?:TOOD|mmdetection)/tood_(r\d+)_fpn_1x_coco", r"tood_\1_fpn_1x_coco"),
    (r"(?:TOOD|mmdetection)/tood_(r\d+)_fpn_(?:mstrain_2x|ms-2x)_coco", r"tood_\1_fpn_2x_ms_coco"),
    (r"(?:TOOD|mmdetection)/tood_(r\d+)_fpn_anchor[-_]based_1x_coco", r"tood_anchor_\1_fpn_1x_coco"),
    (r"DDQ/ddq_fcn_(r\d+)_1x", r"ddq_fcn_\1_fpn_12ep_coco"),
    (r"DDQ/ddq_fcn_(r\d+)_3x_detr_aug", r"ddq_fcn_\1_fpn_36ep_ms_coco"),
    (r"o2f/crowdhuman", "o2f_r50_fpn_47k_crowdhuman"),
)


def find_manifest(golden: Path) -> dict[str, Any]:
    """The manifest of a golden file: the one with the longest name with which the file's name begins.

    It is searched for beside the file, then in a folder that has the name of the file's folder and lies beside the
    parent of this folder, then in this checkout's tests.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    folder = golden.resolve().parent
    folders = [folder, folder.parent.with_name(folder.name), _MANIFESTS]
    for place in folders:
        names = [file.stem for file in place.glob("*.json") if golden.stem.startswith(file.stem)]
        if names:
            return json.loads((place / f"{max(names, key=len)}.json").read_text())
    raise FileNotFoundError(f"{golden}: no manifest {golden.stem}.json in {', '.join(map(str, folders))}")


def zoo_config(manifest: dict[str, Any]) -> str:
    """Name of the config of the manifest's model.

    Raises:
        NotBuilt: there is no such config.
    """
    source = manifest["source"]
    file = Path(source["config"])
    official = file.parent.name if file.name == "config.py" else file.stem
    key = f"{source['repository'].split('/')[1]}/{official.replace('.', '_')}"
    for pattern, name in _CONFIGS:
        match = re.fullmatch(pattern, key)
        if match:
            wanted = match.expand(name).lower()
            for config in model_zoo.list():
                if config.split("/")[1] == wanted:
                    return config
    raise NotBuilt(f"no config for {source['repository']}'s {source['config']}")


def seeded_state_dict(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The official state dict, with values drawn from the keys and adjusted as the manifest says."""
    adjustments = {name: manifest.get(name, {}) for name in ("weight_mul", "logit_bias", "bias_add", "overrides")}
    state = {}
    for key, shape in manifest["keys"].items():
        if key in manifest.get("computed", {}):
            value = _computed(manifest["computed"][key], shape)
        elif shape or key.endswith("num_batches_tracked"):
            value = torch.from_numpy(_draw(key, shape))
        else:
            value = torch.tensor(0.0)  # `overrides` has the value
        value = value * adjustments["weight_mul"].get(key, 1)
        value = value + adjustments["logit_bias"].get(key, 0) + adjustments["bias_add"].get(key, 0)
        if key in adjustments["overrides"]:
            value = torch.full_like(value, adjustments["overrides"][key])
        state[key] = value
    return state


def _computed(value: Any, shape: list[int]) -> Tensor:
    return torch.full(shape, value["fill"]) if isinstance(value, dict) else torch.tensor(value)


def _draw(key: str, shape: list[int]) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)  # noqa: NPY002
    if key.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(normal)
    if key.endswith("running_mean"):
        return np.float32(0.1) * normal
    if len(shape) >= 2:
        return normal * np.float32(math.sqrt(1 / math.prod(shape[1:])))
    if key.rpartition(".")[2] in ("weight", "scale"):
        return 1 + np.float32(0.1) * normal
    return np.float32(0.05) * normal
