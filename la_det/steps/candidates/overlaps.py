"""Pairs of predicted boxes and ground truths that overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.structures import Pairs, Targets

# Boxes of neighbouring locations lie close together. So runs of locations are compared first, by their common bounding
# box, and only few single boxes remain to be compared.
RUN = 16


def overlapping_pairs(boxes: Tensor, targets: Targets, gts: slice) -> Pairs:
    """All pairs (location, ground truth) whose boxes overlap. A box without area overlaps a box whose inside it meets.

    Args:
        boxes: [N, R, 4] XYXY, of every location of every image.
        targets: G ground truths.
        gts: the range of ground truths to look at. Work and memory are O(R / 16) per ground truth plus O(P); a ground
            truth has at most R pairs.

    Returns:
        Pairs ordered by ground truth, then prior. A NaN box overlaps every ground truth, so that it is noticed.
    """
    # A box overlaps a ground truth if each of its (-x1, -y1, x2, y2) exceeds the ground truth's (-x2, -y2, x1, y1).
    reach = torch.cat([-boxes[..., :2], boxes[..., 2:]], -1).transpose(1, 2)
    reach = F.pad(reach, (0, -reach.shape[2] % RUN), value=-torch.inf).unflatten(2, (-1, RUN))  # [N, 4, runs, RUN]
    needed, image = targets.boxes[gts], targets.image[gts]
    needed = torch.cat([-needed[:, 2:], needed[:, :2]], -1)  # [g, 4]

    furthest = reach.amax(3).index_select(0, image)  # [g, 4, runs]
    gt, run = _none_of_four(furthest <= needed.unsqueeze(2)).nonzero().unbind(1)  # host synchronisation
    num_runs = reach.shape[2]
    members = reach.transpose(1, 2).reshape(-1, 4, RUN).index_select(0, image[gt] * num_runs + run)
    near = _none_of_four(members <= needed[gt].unsqueeze(2))
    index, member = near.nonzero().unbind(1)  # host synchronisation
    gt, prior = gt.index_select(0, index), run.index_select(0, index) * RUN + member
    return Pairs(image.index_select(0, gt), prior, gt + gts.start)


def _none_of_four(mask: Tensor) -> Tensor:
    """[n, m] whether none of the four in [n, 4, m] is True; `Tensor.any` takes three times as long."""
    return ~(mask[:, 0] | mask[:, 1] | mask[:, 2] | mask[:, 3])
