"""Pairs of predicted boxes and ground truths that overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.structures import Pairs, Targets

# Boxes of neighbouring locations lie close together: first whole runs of locations are compared by their common
# bounding box, which leaves few single boxes to compare.
RUN = 16


def overlapping_pairs(boxes: Tensor, targets: Targets, gts: slice) -> Pairs:
    """All (location, ground truth) whose boxes share some area, or touch where one has none.

    Args:
        boxes: [N, R, 4] XYXY, of every location of every image.
        targets: G ground truths.
        gts: the range of ground truths to look at. Work and memory are O(R / 16) per ground truth and O(P), and
            P <= R per ground truth.

    Returns:
        Pairs ordered by ground truth, then prior.
    """
    # A box overlaps a ground truth if (-x1, -y1, x2, y2) of it exceeds (-x2, -y2, x1, y1) of the other everywhere.
    reach = torch.cat([-boxes[..., :2], boxes[..., 2:]], -1)
    reach = F.pad(reach, (0, 0, 0, -reach.shape[1] % RUN), value=-torch.inf).unflatten(1, (-1, RUN))  # [N, T, RUN, 4]
    needed, image = targets.boxes[gts], targets.image[gts]
    needed = torch.cat([-needed[:, 2:], needed[:, :2]], -1)
    gt, run = (reach.amax(2)[image] > needed.unsqueeze(1)).all(-1).nonzero(as_tuple=True)  # host synchronisation
    members = reach.flatten(0, 1)[image[gt] * reach.shape[1] + run]  # [runs, RUN, 4]
    index, member = (members > needed[gt].unsqueeze(1)).all(-1).nonzero(as_tuple=True)  # host synchronisation
    gt = gt[index]
    return Pairs(image[gt], run[index] * RUN + member, gt + gts.start)
