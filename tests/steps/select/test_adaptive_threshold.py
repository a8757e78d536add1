"""Candidates that an image does not have; all else is compared with the dense form in tests/matchers/test_atss.py."""

import torch

from la_det.references.scene import make_targets
from la_det.steps.select import above_threshold, mean_plus_std
from la_det.structures import PointGenerator


def test_statistics_are_of_the_candidates_that_exist():
    iou = torch.tensor([[0.2, 0.6, 0.7, 0.9], [0.5, 0.1, 0.3, 0.2]])
    exists = torch.tensor([[True, True, True, False], [True, False, False, False]])
    first, second = mean_plus_std(iou, exists)
    torch.testing.assert_close(first, mean_plus_std(iou[:1, :3])[0])
    assert second.isnan(), "one candidate has no deviation"


def test_a_candidate_that_does_not_exist_is_no_positive():
    priors = PointGenerator(strides=(8,))([(4, 4)], torch.device("cpu"))
    targets = make_targets([[[0, 0, 32, 32]]])
    candidates, iou = torch.tensor([[5, 0]]), torch.tensor([[0.9, 0.9]])
    options = candidates, iou, torch.tensor([0.5]), priors, targets, 0.01
    assert above_threshold(*options)[0].prior.tolist() == [5, 0]
    assert above_threshold(*options, torch.tensor([[True, False]]))[0].prior.tolist() == [5]
