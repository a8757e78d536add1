"""PAA's score voting against a loop over detections and candidates."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from la_det.modeling.inference import Candidates, DenseInference
from la_det.modeling.score_voting import ScoreVoting


def make_candidates(num_images: int = 2, size: int = 60) -> Candidates:
    """Boxes of three classes around three places."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[20.0, 20.0], [60.0, 30.0], [40.0, 70.0]])
    centers = centers[torch.randint(3, (num_images, size), generator=generator)]
    centers = centers + torch.randn(num_images, size, 2, generator=generator)
    sides = 30 + torch.randn(num_images, size, 2, generator=generator)
    return Candidates(
        torch.cat([centers - sides / 2, centers + sides / 2], -1),
        torch.rand(num_images, size, generator=generator),
        torch.randint(3, (num_images, size), generator=generator),
        torch.arange(size).expand(num_images, -1),
        torch.rand(num_images, size, generator=generator) < 0.8,
    )


def test_weighted_mean_of_all_candidates_of_the_class():
    candidates = make_candidates()
    rule = DenseInference(nms_threshold=0.6, max_detections=10)
    kept = rule.select(candidates, 0.6)
    voted = ScoreVoting()(kept, candidates)
    for name in ("scores", "classes", "priors", "valid"):
        assert torch.equal(getattr(voted, name), getattr(kept, name))
    for n in range(2):
        for d in kept.valid[n].nonzero().squeeze(1).tolist():
            total, weights = torch.zeros(4), 0.0
            for j in range(candidates.scores.shape[1]):
                iou = box_iou(kept.boxes[n, d][None], candidates.boxes[n, j][None])[0, 0]
                same = candidates.valid[n, j] and candidates.classes[n, j] == kept.classes[n, d]
                if same and iou > 0.01:
                    weight = torch.exp(-((1 - iou) ** 2) / 0.025) * candidates.scores[n, j]
                    total, weights = total + weight * candidates.boxes[n, j], weights + weight
            torch.testing.assert_close(voted.boxes[n, d], total / weights, rtol=1e-5, atol=1e-4)
    assert (voted.boxes - kept.boxes)[kept.valid].abs().max() > 0.5


def test_is_a_step_after_nms():
    candidates = make_candidates()
    plain, voting = DenseInference(nms_threshold=0.6), DenseInference(nms_threshold=0.6, voting=ScoreVoting())
    kept = plain.select(candidates, 0.6)
    assert torch.equal(voting.select(candidates, 0.6).boxes, ScoreVoting()(kept, candidates).boxes)
    assert torch.equal(voting.select(candidates, None).boxes, plain.select(candidates, None).boxes)


@pytest.mark.parametrize("iou, counts", [(0.009, False), (0.011, True)])
def test_candidates_that_hardly_overlap_do_not_count(iou, counts):
    """With a wide weight, so that one shows."""
    boxes = torch.tensor([[[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0 * iou, 100.0]]])
    zeros = torch.zeros(1, 2, dtype=torch.int64)
    candidates = Candidates(boxes, torch.ones(1, 2), zeros, zeros, torch.ones(1, 2, dtype=torch.bool))
    first = candidates.take(zeros[:, :1])
    voted = ScoreVoting(sigma=100.0)(first, candidates)
    assert bool(voted.boxes[0, 0, 2] < 99) == counts


def test_a_box_without_area_stays():
    candidates = make_candidates(1, 3)
    candidates = replace(candidates, boxes=candidates.boxes[..., [0, 1, 0, 3]], valid=torch.ones_like(candidates.valid))
    assert torch.equal(ScoreVoting()(candidates, candidates).boxes, candidates.boxes)


def test_images_without_candidates():
    candidates = make_candidates(2, 5).take(torch.zeros(2, 0, dtype=torch.int64))
    assert ScoreVoting()(candidates, candidates).boxes.shape == (2, 0, 4)
