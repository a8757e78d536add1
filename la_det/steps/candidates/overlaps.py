"""Predicted boxes and ground truths that overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.structures import Pairs, Targets, chunks

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
    gt, prior = _listed(*_runs(_reach(boxes), _needed(targets.boxes[gts]), targets.image[gts]))
    gt = gt + gts.start
    return Pairs(targets.image.index_select(0, gt), prior, gt)


def pairs_of_iou(boxes: Tensor, targets: Targets, min_iou: Tensor) -> tuple[Pairs, Tensor | None]:
    """All pairs whose IoU is positive and at least `min_iou`, and others.

    With an IoU of v, boxes overlap in both directions by at least v of each one's sides, and neither area is less than
    v times the other. On a GPU neighbours come along, so that one number less has to be waited for.

    Args:
        boxes: [N, R, 4] XYXY, of every location of every image.
        targets: G ground truths.
        min_iou: [G].

    Returns:
        Pairs ordered by ground truth, then prior; and [P] bool which of them can have such an IoU, None if all can.
    """
    v = 0.99 * min_iou.unsqueeze(1)  # rounding must not lose a pair
    lower, upper = targets.boxes.split(2, 1)
    margin, areas, image = v * (upper - lower), targets.areas.unsqueeze(1), targets.image
    needed = [_needed(torch.cat([lower + margin, upper - margin], 1)), -areas / v, v * areas]
    own_areas = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1, keepdim=True).transpose(1, 2)
    reach = torch.cat([_reach(boxes), -own_areas, own_areas], 1)
    gt, run, near = _runs(reach, torch.cat(needed, 1), image)
    if chunks.in_chunks(boxes.device):
        gt, prior = _listed(gt, run, near)
        return Pairs(image.index_select(0, gt), prior, gt), None
    prior = run.unsqueeze(1) * RUN + torch.arange(RUN, device=run.device)
    gt = gt.unsqueeze(1).expand_as(prior).flatten()
    prior = prior.flatten().clamp_(max=boxes.shape[1] - 1)  # the last run's may be beyond
    return Pairs(image.index_select(0, gt), prior, gt), near.flatten()


def _listed(gt: Tensor, run: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Ground truths [P] and priors [P] of the pairs in runs."""
    index, member = near.nonzero().unbind(1)  # host synchronisation
    return gt.index_select(0, index), run.index_select(0, index) * RUN + member


def meeting_runs(boxes: Tensor, targets: Targets) -> Tensor:
    """[G, R / 16 rounded up] bool: runs of locations of whose boxes [N, R, 4] some may overlap the ground truth."""
    return _meeting(_in_runs(_reach(boxes)), _needed(targets.boxes), targets.image)


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
    """[N, 4, R] of boxes [N, R, 4]. A box overlaps a ground truth if each of its four exceeds the other's `_needed`."""
    return torch.cat([-boxes[..., :2], boxes[..., 2:]], -1).transpose(1, 2)


def _needed(gt_boxes: Tensor) -> Tensor:
    """[g, 4] of boxes [g, 4]."""
    return torch.cat([-gt_boxes[:, 2:], gt_boxes[:, :2]], -1)


def _runs(reach: Tensor, needed: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ground truth [H] and run [H] where runs can exceed what is needed, and which members [H, RUN] do.

    Args:
        reach: [N, C, R], all of which have to exceed what is needed.
        needed: [g, C].
        image: [g].
    """
    reach = _in_runs(reach)
    gt, run = _meeting(reach, needed, image).nonzero().unbind(1)  # host synchronisation
    members = reach.transpose(1, 2).flatten(0, 1)  # [N runs, C, RUN]
    return gt, run, _exceed(members, image[gt] * reach.shape[2] + run, needed[gt])


def _in_runs(reach: Tensor) -> Tensor:
    """[N, C, runs, RUN] of [N, C, R]; places behind the last location reach nothing."""
    return F.pad(reach, (0, -reach.shape[2] % RUN), value=-torch.inf).unflatten(2, (-1, RUN))


def _meeting(reach: Tensor, needed: Tensor, image: Tensor) -> Tensor:
    """[g, runs] bool, whether runs [N, C, runs, RUN] can exceed what is needed [g, C]."""
    return _exceed(reach.amax(3), image, needed)


def _exceed(reach: Tensor, row: Tensor, needed: Tensor) -> Tensor:
    """[n, m] bool, whether all C values in rows [n] of `reach` [r, C, m] exceed what is needed [n, C].

    One value is compared after the other. All together would need C times the memory.
    """
    short = torch.zeros(len(row), reach.shape[2], dtype=torch.bool, device=reach.device)
    for values, bound in zip(reach.unbind(1), needed.unsqueeze(2).unbind(1), strict=True):
        short |= values.index_select(0, row) <= bound
    return short.logical_not_()
