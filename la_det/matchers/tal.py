"""Task-aligned assignment (TOOD, ICCV 2021) in the form that YOLOv8 and YOLOv10 made common (arXiv 2405.14458)."""

import torch

from la_det.geometry import aligned_ciou
from la_det.steps.candidates import inside_box
from la_det.steps.score import alignment, normalised_alignment
from la_det.steps.select import best_per_prior, contested, topk_in_group
from la_det.structures import Assignment, DensePredictions, Score, Targets

TARGET_EPS = 1e-9


class TAL:
    """Each ground truth takes the `topk` locations inside it with the largest alignment t = p^alpha u^beta.

    p is the probability of its class, and u the CIoU of the predicted box, at least 0. A location that several take
    goes to the ground truth of largest u among all that contain it, of equal ones to the first: this can be one that
    did not take it. So a ground truth may end with fewer locations than `topk`, or with more. The soft target of a
    positive is its t, scaled so that the ground truth's largest one is its largest u.

    Two branches with equal exponents and `topk` 10 and 1 are YOLOv10's consistent dual assignment.

    Args:
        topk: locations that a ground truth takes.
        alpha, beta: exponents of the probability and of the CIoU.
    """

    def __init__(self, *, topk: int = 10, alpha: float = 0.5, beta: float = 6.0):
        self.topk = topk
        self.alpha = alpha
        self.beta = beta

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors, num_gts = predictions.priors, len(targets)
        pairs = targets.once(inside_box, priors)  # the same for both branches of a dual assignment
        p = score.at(predictions, pairs.image, pairs.prior, targets.classes.index_select(0, pairs.gt))
        boxes = predictions.boxes_at(pairs.image, pairs.prior)
        u = aligned_ciou(boxes, targets.boxes.index_select(0, pairs.gt)).clamp(min=0)
        t = alignment(p, u, self.alpha, self.beta)
        taken = topk_in_group(pairs.gt, t, num_gts, self.topk) & ~(t <= 0)  # NaN must not hide

        among = taken | contested(pairs, taken, priors, targets.num_images)
        positive = best_per_prior(pairs, u.nan_to_num(nan=torch.inf), priors, targets.num_images, among)
        positive = positive.nonzero().squeeze(1)  # host synchronisation: the number of positives
        pairs, t, u = pairs[positive], t[positive], u[positive]
        return Assignment(pairs, target=normalised_alignment(t, u, pairs.gt, num_gts, TARGET_EPS))
