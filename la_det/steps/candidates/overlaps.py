"""Predicted boxes and ground truths that overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import aligned_iou
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
    reach = _reach(boxes)
    needed, image = _needed(targets.boxes[gts]), targets.image[gts]
    gt, run = _meeting(reach, needed, image).nonzero().unbind(1)  # host synchronisation
    num_runs = reach.shape[2]
    members = reach.transpose(1, 2).reshape(-1, 4, RUN).index_select(0, image[gt] * num_runs + run)
    near = _none_of_four(members <= needed[gt].unsqueeze(2))
    index, member = near.nonzero().unbind(1)  # host synchronisation
    gt, prior = gt.index_select(0, index), run.index_select(0, index) * RUN + member
    return Pairs(image.index_select(0, gt), prior, gt + gts.start)


def meeting_runs(boxes: Tensor, targets: Targets) -> Tensor:
    """[G, R / 16 rounded up] bool: runs of locations of whose boxes [N, R, 4] some may overlap the ground truth."""
    return _meeting(_reach(boxes), _needed(targets.boxes), targets.image)


def largest_iou(boxes: Tensor, targets: Targets, runs: Tensor) -> Tensor:
    """Of each location the largest IoU of its box with any ground truth of its image.

    Args:
        boxes: [N, R, 4] XYXY, of every location of every image.
        targets: G ground truths.
        runs: indices of what is True in the flattened `meeting_runs`.

    Returns:
        [N, R], or more columns, which mean nothing.
    """
    boxes = F.pad(boxes, (0, 0, 0, -boxes.shape[1] % RUN)).unflatten(1, (-1, RUN))  # [N, runs, RUN, 4]
    num_images, num_runs = boxes.shape[:2]
    gt = runs.div(num_runs, rounding_mode="floor")
    run = targets.image.index_select(0, gt) * num_runs + runs % num_runs
    iou = aligned_iou(boxes.flatten(0, 1).index_select(0, run), targets.boxes.index_select(0, gt).unsqueeze(1))
    location = run.unsqueeze(1) * RUN + torch.arange(RUN, device=run.device)
    largest = iou.new_zeros(num_images * num_runs * RUN)
    return largest.scatter_reduce_(0, location.flatten(), iou.flatten(), "amax").view(num_images, -1)


def _reach(boxes: Tensor) -> Tensor:
    """[N, 4, runs, RUN] -x1, -y1, x2, y2 of boxes [N, R, 4]; of places behind the last box -inf."""
    reach = torch.cat([-boxes[..., :2], boxes[..., 2:]], -1).transpose(1, 2)
    return F.pad(reach, (0, -reach.shape[2] % RUN), value=-torch.inf).unflatten(2, (-1, RUN))


def _needed(boxes: Tensor) -> Tensor:
    """[g, 4] bounds of boxes [g, 4]: another box overlaps one if each of its `_reach` exceeds its bound."""
    return torch.cat([-boxes[:, 2:], boxes[:, :2]], -1)


def _meeting(reach: Tensor, needed: Tensor, image: Tensor) -> Tensor:
    """[g, runs] bool."""
    furthest = reach.amax(3).index_select(0, image)  # [g, 4, runs]
    return _none_of_four(furthest <= needed.unsqueeze(2))


def _none_of_four(mask: Tensor) -> Tensor:
    """[n, m] whether none of the four in [n, 4, m] is True; `Tensor.any` takes three times as long."""
    return ~(mask[:, 0] | mask[:, 1] | mask[:, 2] | mask[:, 3])
