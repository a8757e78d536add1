"""DATE's POTO on the dense matrix, one image at a time, as the official code does it."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from la_det.references.poto import iou_matrix, omega


def poto(points: Tensor, strides: Tensor, p: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor) -> Tensor:
    """Matched ground truth of each location [R], -1 for background, from probabilities [R, K] and boxes [R, 4]."""
    mask = omega(points, strides, gt_boxes, 1.5).T.float()
    q = mask * p[:, gt_classes] ** 0.2 * iou_matrix(gt_boxes, boxes).T ** 0.8  # [R, G]
    assigned = torch.full((len(points),), -1)
    rows, columns = linear_sum_assignment(q.numpy(), maximize=True)
    assigned[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return assigned
