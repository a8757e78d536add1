"""Stand-ins for the parts of cvpods and MMDetection that assignment and losses of DeFCN and DW import.

The frameworks need compiled operators and old versions of PyTorch. Their functions are replaced here, by those of
Detectron2, fvcore and torchvision wherever these exist. Only training is possible.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from la_det.benchmark.scene import STRIDES
from la_det.errors import UserError

# Options that DeFCN's configs leave to cvpods. The network is not part of the measurement, and inference does not run.
_FCOS_DEFAULTS = {
    "DEVICE": "cpu",
    "NMS_TYPE": None,
    "PIXEL_MEAN": [0.0, 0.0, 0.0],
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "FCOS": {
        "NUM_CLASSES": 80,
        "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
        "FPN_STRIDES": list(STRIDES),
        "NUM_CONVS": 0,
        "PRIOR_PROB": 0.01,
        "SCORE_THRESH_TEST": None,
        "TOPK_CANDIDATES_TEST": None,
    },
}


def load(path: Path, framework: dict[str, dict[str, object]]) -> ModuleType:
    """Runs a Python file of a checkout, with imports from `framework` (module -> names -> objects).

    Raises:
        UserError: the file imports a name that the stand-ins do not have.
    """
    spec = importlib.util.spec_from_file_location(f"checkout_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with _importable(framework):
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            raise UserError(f"{path}: {error}; expected is the last commit of the repository") from error
    return module


@contextmanager
def _importable(framework: dict[str, dict[str, object]]) -> Iterator[None]:
    """Context in which imports find these modules, and the packages around them, instead of installed ones."""
    modules = {name: ModuleType(name) for full in framework for name in _with_packages(full)}
    for name, module in modules.items():
        vars(module).update(framework.get(name, {}), __path__=[])
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _with_packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


class FCOSConfig:
    """DeFCN's config, merged over the defaults, with attribute access."""

    def __init__(self):
        self._values = {"MODEL": _FCOS_DEFAULTS, "TEST": {"DETECTIONS_PER_IMAGE": 100}}

    def _register_configuration(self, values: dict) -> None:
        self._values = _merged(self._values, values)
        vars(self).update(vars(_by_attributes(self._values)))


def _merged(base: dict, other: dict) -> dict:
    both = {key: _merged(base[key], other[key]) for key in base.keys() & other.keys() if isinstance(base[key], dict)}
    return base | other | both


def _by_attributes(values: object) -> object:
    if not isinstance(values, dict):
        return values
    return SimpleNamespace(**{key: _by_attributes(value) for key, value in values.items()})


class ShiftTransform:
    """Distances (left, top, right, bottom) [..., 4] from points [..., 2] to the sides of boxes, in pixels."""

    def __init__(self, weights: Sequence[float]):
        if any(weight != 1 for weight in weights):
            raise UserError(f"BBOX_REG_WEIGHTS {tuple(weights)}: expected are those of the published configs, all 1")

    def get_deltas(self, points: Tensor, boxes: Tensor) -> Tensor:
        return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)

    def apply_deltas(self, deltas: Tensor, points: Tensor) -> Tensor:
        return torch.cat([points - deltas[..., :2], points + deltas[..., 2:]], -1)


def ltrb_iou_loss(inputs: Tensor, targets: Tensor, box_mode: str, loss_type: str, reduction: str = "none") -> Tensor:
    """GIoU loss [...] of boxes around the same points, given as distances to the sides [..., 4]."""
    if (box_mode, loss_type) != ("ltrb", "giou"):
        raise UserError(f"IoU loss {loss_type!r} of {box_mode!r} boxes: expected is 'giou' of 'ltrb'")
    boxes = (torch.cat([-x[..., :2], x[..., 2:]], -1) for x in (inputs, targets))
    return generalized_box_iou_loss(*boxes, reduction=reduction)


def _all_rows(*maps_and_classes: object) -> list[Tensor]:
    """Logits, boxes and other maps of all levels and images as rows [N R, channels]."""
    *maps, num_classes = maps_and_classes
    channels = [num_classes, 4, 1][: len(maps)]
    return [
        torch.cat([permute_to_N_HWA_K(x, k) for x in levels], 1).flatten(0, 1)
        for levels, k in zip(maps, channels, strict=True)
    ]


class Scale(nn.Module):
    """A part of the head, which does not run."""

    def __init__(self, init_value: float):
        super().__init__()


def _only_for_inference(*_: object, **__: object) -> None:
    raise NotImplementedError("stand-in for a function of inference")


CVPODS: dict[str, dict[str, object]] = {
    "cvpods.configs.fcos_config": {"FCOSConfig": FCOSConfig},
    "cvpods.layers": {"ShapeSpec": ShapeSpec, "cat": cat, "generalized_batched_nms": _only_for_inference},
    "cvpods.modeling.box_regression": {"Shift2BoxTransform": ShiftTransform},
    "cvpods.modeling.losses": {"iou_loss": ltrb_iou_loss, "sigmoid_focal_loss_jit": sigmoid_focal_loss_jit},
    "cvpods.modeling.meta_arch.fcos": {
        "Scale": Scale,
        "permute_all_cls_and_box_to_N_HWA_K_and_concat": _all_rows,
    },
    "cvpods.modeling.meta_arch.retinanet": {
        "permute_to_N_HWA_K": permute_to_N_HWA_K,
        "permute_all_cls_and_box_to_N_HWA_K_and_concat": _all_rows,
    },
    "cvpods.modeling.postprocessing": {"detector_postprocess": _only_for_inference},
    "cvpods.structures": {"Boxes": Boxes, "ImageList": ImageList, "Instances": Instances, "pairwise_iou": pairwise_iou},
    "cvpods.utils": {
        "comm": SimpleNamespace(all_reduce=lambda x: x, get_world_size=lambda: 1),
        "get_event_storage": lambda: SimpleNamespace(put_scalar=lambda *_: None),
        "log_first_n": _only_for_inference,
    },
}


class Points:
    """Generator of the locations [h w, 2] of every level, for maps of sizes (h, w)."""

    def __init__(self, strides: Sequence[int]):
        self.strides, self.offset = strides, 0.5

    def grid_priors(self, sizes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        return [self._level(*size, stride, dtype, device) for size, stride in zip(sizes, self.strides, strict=True)]

    def _level(self, h: int, w: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        y, x = ((torch.arange(n, dtype=dtype, device=device) + self.offset) * stride for n in (h, w))
        return torch.cartesian_prod(y, x).flip(1)


class AnchorFreeHead(nn.Module):
    """The parts of MMDetection's head that the loss of DW's head uses."""

    def __init__(self, num_classes: int, strides: Sequence[int], loss_bbox: dict, **_: object):
        super().__init__()
        if loss_bbox != {"type": "GIoULoss", "loss_weight": 1.0}:
            raise UserError(f"loss_bbox {loss_bbox}: expected is that of the published config, GIoULoss of weight 1")
        self.num_classes, self.strides, self.prior_generator = num_classes, strides, Points(strides)

    def loss_bbox(self, boxes: Tensor, targets: Tensor, weight: None, reduction_override: str) -> Tensor:
        return generalized_box_iou_loss(boxes, targets, reduction=reduction_override)


def _aligned_iou(a: Tensor, b: Tensor, is_aligned: bool) -> Tensor:
    """IoU [n] of each box of [n, 4] with the box of the other [n, 4] at the same place."""
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    overlap = sides.prod(1)
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-6)


def _multi_apply(function: Callable[..., tuple], *lists: Sequence, **options: object) -> tuple[list, ...]:
    """The function's results for each position of the lists, as one list for each result."""
    return tuple(map(list, zip(*map(partial(function, **options), *lists), strict=True)))


def _by_image(levels: Sequence[Tensor]) -> list[Tensor]:
    """Maps [N, channels, h, w] of the levels as rows [R, channels] of each image."""
    return list(torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1))


def _same(x: object) -> object:
    return x


MMDET: dict[str, dict[str, object]] = {
    "mmcv.cnn": {"bias_init_with_prob": None, "normal_init": None, "Scale": None},
    "mmcv.ops": {"deform_conv2d": None},
    "mmcv.runner": {"force_fp32": lambda apply_to: _same},
    "mmdet.core": {
        "bbox2distance": None,
        "bbox_overlaps": _aligned_iou,
        "distance2bbox": lambda points, distances: ShiftTransform([1]).apply_deltas(distances, points),
        "filter_scores_and_topk": None,
        "multi_apply": _multi_apply,
        "reduce_mean": _same,
        "select_single_mlvl": None,
    },
    "mmdet.models": {
        "AnchorFreeHead": AnchorFreeHead,
        "HEADS": SimpleNamespace(register_module=lambda: _same),
    },
    "mmdet.models.dense_heads.paa_head": {"levels_to_images": _by_image},
}
