"""Pairs of predicted boxes and ground truths that overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.structures import Pairs, Targets, chunks

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
        Pairs ordered by ground truth, then prior. A box of NaN overlaps everything, so that it does not hide.
    """
    gt, prior = _listed(*_runs(boxes, targets.boxes[gts], targets.image[gts]))
    gt = gt + gts.start
    return Pairs(targets.image.index_select(0, gt), prior, gt)


def overlapping_runs(boxes: Tensor, gt_boxes: Tensor, image: Tensor) -> tuple[Pairs, Tensor | None]:
    """Such pairs of all ground truths, and on a GPU their neighbours as well, so that one number less is waited for.

    Args:
        boxes: [N, R, 4] XYXY, of every location of every image.
        gt_boxes: [G, 4]. A box overlaps one if its x2 exceeds that one's x1, its x1 is less than that one's x2, and so
            for y. They may be reversed: then more than some overlap is asked for.
        image: [G] int64, of the ground truths.

    Returns:
        Pairs ordered by ground truth, then prior; and [P] bool which of them overlap, None if all do.
    """
    gt, run, near = _runs(boxes, gt_boxes, image)
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


def _runs(boxes: Tensor, gt_boxes: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ground truth [H] and run [H] where runs overlap, and which [H, RUN] of their members do, none beyond R."""
    # A box overlaps a ground truth if its (-x1, -y1, x2, y2) all exceed (-x2, -y2, x1, y1) of the other.
    reach = torch.cat([-boxes[..., :2], boxes[..., 2:]], -1).transpose(1, 2)
    reach = F.pad(reach, (0, -reach.shape[2] % RUN), value=-torch.inf).unflatten(2, (-1, RUN))  # [N, 4, runs, RUN]
    needed = torch.cat([-gt_boxes[:, 2:], gt_boxes[:, :2]], -1)  # [g, 4]

    furthest = reach.amax(3).index_select(0, image)  # [g, 4, runs]
    gt, run = _none_of_four(furthest <= needed.unsqueeze(2)).nonzero().unbind(1)  # host synchronisation
    num_runs = reach.shape[2]
    members = reach.transpose(1, 2).reshape(-1, 4, RUN).index_select(0, image[gt] * num_runs + run)
    return gt, run, _none_of_four(members <= needed[gt].unsqueeze(2))


def _none_of_four(mask: Tensor) -> Tensor:
    """[n, 4, m] -> [n, m]; `Tensor.any` takes three times as long."""
    return ~(mask[:, 0] | mask[:, 1] | mask[:, 2] | mask[:, 3])
