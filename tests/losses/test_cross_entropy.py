"""Cross entropy of probabilities against PyTorch's on one-hot targets, at the ends too."""

import torch
import torch.nn.functional as F

from la_det.losses.cross_entropy import background_cross_entropy, cross_entropy_entries
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator, Score


def test_entries_are_those_of_pytorch():
    p = torch.tensor([0.0, 1e-30, 1e-6, 0.3, 0.999999, 1.0])
    positive, negative = cross_entropy_entries(p)
    torch.testing.assert_close(positive, F.binary_cross_entropy(p, torch.ones(6), reduction="none"))
    torch.testing.assert_close(negative, F.binary_cross_entropy(p, torch.zeros(6), reduction="none"))
    assert positive[0] == negative[-1] == 100


def test_background():
    torch.manual_seed(0)
    maps = {
        name: [30 * torch.randn(2, c, 3, 4), 30 * torch.randn(2, c, 2, 2)]
        for name, c in (("logits", 5), ("quality", 1))
    }
    priors = PointGenerator(strides=(8, 16))([(3, 4), (2, 2)], torch.device("cpu"))
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    score = Score(gate="quality", square_root=True)
    p = (predictions.joined("logits").sigmoid() * predictions.joined("quality").sigmoid()).sqrt()
    expected = F.binary_cross_entropy(p, torch.zeros_like(p), reduction="none").sum(1)
    torch.testing.assert_close(background_cross_entropy(predictions, score), expected)
