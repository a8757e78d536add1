"""NMS of a batch as one operator, which an exported graph keeps as one node."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


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
        # torchvision moves the classes apart, for which half precision has too few numbers.
        kept = batched_nms(boxes[n, index].float(), scores[n, index], classes[n, index], iou_threshold)
        survivors[n, index[kept]] = True
    return survivors


@class_nms.register_fake
def _(boxes: Tensor, scores: Tensor, classes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(valid)


@torch.library.custom_op("la_det::agnostic_nms", mutates_args=())
def agnostic_nms(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """[N, S] bool, the valid boxes that NMS among the valid boxes of their image keeps.

    A GPU is waited for once per image.

    Args:
        boxes: [N, S, 4] XYXY.
        scores: [N, S].
        valid: [N, S] bool.
        iou_threshold: a box is removed if its IoU with a better one that stays is larger.
    """
    survivors = torch.zeros_like(valid)
    scores = scores.masked_fill(~valid, -torch.inf)  # after all valid ones, which they then cannot remove
    for n in range(len(survivors)):
        survivors[n].index_fill_(0, nms(boxes[n], scores[n], iou_threshold), True)
    return survivors.logical_and_(valid)


@agnostic_nms.register_fake
def _(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(valid)
