"""NMS of all classes together, of a batch as one operator, which an exported graph keeps as one node."""

import torch
from torch import Tensor
from torchvision.ops import nms


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
