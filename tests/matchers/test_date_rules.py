"""DATE's POTO, where locations outside the centre region have quality 0, against its dense form."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.matchers import POTO
from la_det.references import poto as reference
from la_det.references.image import images
from la_det.references.scene import grid_sizes, make_targets, matched_in_image, random_boxes, random_predictions
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator, Score

KINDS = ("object", "object", "tiny", "huge", "degenerate", "outside")


def match(predictions, targets, **options):
    assignment = POTO(**options)(predictions, targets, score=Score(), progress=0.0)
    return matched_in_image(assignment, targets, len(predictions.priors))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([(64, 64), (128, 160)]), st.sampled_from([0.0, 0.5, 1.0]))
def test_same_as_the_dense_form(data, size, empty):
    """Also when a share `empty` of all predicted boxes has no area, as at the start of a training."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    kinds = data.draw(st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3))
    boxes = [random_boxes(generator, k, *size) for k in kinds]
    classes = [torch.randint(3, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size)
    predictions = random_predictions(generator, targets, *size, 3)
    for x in predictions.maps["boxes"]:
        x *= torch.rand(x[:, :1].shape, generator=generator) >= empty
    actual = match(predictions, targets, outside=0.0)
    for i, x in enumerate(images(Score(), predictions, targets)):
        assert actual[i].tolist() == reference.poto_rule(POTO(outside=0.0), x).tolist()


def test_a_ground_truth_without_overlap_gets_the_first_location():
    """Its candidates have quality 0 as all locations have; DeFCN's -1 prefers a candidate."""
    priors = PointGenerator()(grid_sizes(64, 64), torch.device("cpu"))
    maps = {"logits": [torch.zeros(1, 1, h, w) for h, w in priors.grid_sizes]}
    maps["boxes"] = [torch.zeros(1, 4, h, w) for h, w in priors.grid_sizes]
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    targets = make_targets([[[20, 20, 44, 44]]], size=(64, 64))
    assert match(predictions, targets, outside=0.0).flatten().argmax() == 0
    assert match(predictions, targets).flatten().argmax() > 0
