"""Class-wise non-maximum suppression of a batch as one operator, which an exported graph keeps as one node."""

import torch
from detectron2.layers import batched_nms
from torch import Tensor


@torch.library.custom_op("la_det::class_nms", mutates_args=())
def class_nms(boxes: Tensor, scores: Tensor, classes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """[N, S] bool, the valid boxes that remain after NMS among the valid boxes of one image and class.

    Args:
        boxes: [N, S, 4] XYXY.
        scores: [N, S].
        classes: [N, S] int64.
        valid: [N, S] bool.
        iou_threshold: a box is removed if its IoU with a kept box of higher score is larger than this.
    """
    survivors = torch.zeros_like(valid)
    for n in range(len(survivors)):
        index = valid[n].nonzero().squeeze(-1)
        kept = batched_nms(boxes[n, index], scores[n, index], classes[n, index], iou_threshold)
        survivors[n, index[kept]] = True
    return survivors


@class_nms.register_fake
def _(boxes: Tensor, scores: Tensor, classes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(valid)
