"""Criteria from DeFCN's configs at the edges: no ground truth, ignored ones, predictions of NaN."""

from dataclasses import replace

import pytest
import torch
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.matchers import FCOS, POTO
from la_det.modeling.criteria import Criterion, FocalLoss, GIoULoss, LossTerm, reduce_losses
from la_det.modeling.heads import FilteredPredictor
from la_det.references.scene import grid_sizes, make_targets, random_boxes, random_predictions
from la_det.structures import DensePredictions, Targets

CONFIGS = [
    "FCOS/fcos_r50_fpn_3x_ms_coco",
    "FCOS/fcos_wo_ctrness_r50_fpn_3x_ms_coco",
    "POTO/anchor_r50_fpn_3x_ms_coco",
    "POTO/center_r50_fpn_3x_ms_coco",
    "POTO/loss_r50_fpn_3x_ms_coco",
    "POTO/poto_r50_fpn_3x_ms_coco",
    "POTO/poto_argmax_r50_fpn_3x_ms_coco",
    "POTO/poto_3dmf_aux_r50_fpn_3x_ms_coco",
]
SIZE = (64, 96)


def make_case(name: str, kinds_per_image: list[list[str]]) -> tuple[list[Criterion], DensePredictions, Targets]:
    """A config's criteria, a leaf for each map they read, and ground truths of the given kinds, all of class 0."""
    generator = torch.Generator().manual_seed(0)
    targets = make_targets([random_boxes(generator, kinds, *SIZE) for kinds in kinds_per_image], size=SIZE)
    config = model_zoo.get_config(name).model
    predictor = instantiate(config.head.predictors.main)
    priors = predictor.priors(grid_sizes(*SIZE), torch.device("cpu"))
    every = random_predictions(generator, targets, *SIZE, num_classes=1, priors=priors)
    used = (
        ["logits", "boxes"]
        + ["quality"] * (predictor.quality is not None)
        + ["filter"] * isinstance(predictor, FilteredPredictor)
    )
    maps = {name: [x.requires_grad_() for x in every.maps[name]] for name in used}
    return list(instantiate(config.criteria)), DensePredictions(priors, predictor.codec, maps), targets


def train(criteria, predictions, targets) -> dict[str, torch.Tensor]:
    terms = {}
    for criterion in criteria:
        terms |= criterion(predictions, targets, progress=0.0)
    losses = reduce_losses(terms)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "kinds",
    [[[]], [[], []], [["object", "object"], []], [["tiny", "huge", "duplicate"], ["degenerate", "outside"]]],
    ids=["no image with objects", "no image of two", "one image without", "odd boxes"],
)
def test_losses_and_gradients_are_finite(name, kinds):
    criteria, predictions, targets = make_case(name, kinds)
    losses = train(criteria, predictions, targets)
    for loss in losses.values():
        assert loss.isfinite()
        assert loss >= 0
    for map_name, levels in predictions.maps.items():
        for level in levels:
            assert level.grad is not None, map_name
            assert level.grad.isfinite().all(), map_name
    if len(targets) == 0:
        assert losses["loss_cls"] > 0
        assert losses["loss_box_reg"] == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_no_ground_truth_means_all_background(name):
    """The same classification loss as that of an image whose only ground truth gets no location."""
    criteria, predictions, targets = make_case(name, [[]])
    losses = train(criteria, predictions, targets)
    c = [x.detach().double() for x in predictions.maps["logits"]]
    f = predictions.maps.get("filter")
    p = [x.sigmoid() for x in c] if f is None else [x.sigmoid() * y.sigmoid() for x, y in zip(c, f, strict=True)]
    expected = 0.75 * sum((-(q**2) * torch.log1p(-q)).sum() for q in p)
    assert losses["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_nan_logits_never_pass_unnoticed(name):
    criteria, predictions, targets = make_case(name, [["object", "object"]])
    predictions.maps["logits"][0].data.fill_(torch.nan)
    try:
        losses = train(criteria, predictions, targets)
    except FloatingPointError as error:
        assert "diverged" in str(error)
    else:
        assert losses["loss_cls"].isnan()


def with_ignored() -> tuple[DensePredictions, Targets]:
    _, predictions, _ = make_case(CONFIGS[1], [[]])
    targets = make_targets([[[0, 0, 30, 30], [40, 0, 90, 60]]], size=SIZE)
    return predictions, replace(targets, ignored=torch.tensor([False, True]))


@pytest.mark.parametrize(
    ("ignored", "num_positives", "dropped"), [("background", 1, False), ("dropped", 1, True), ("counted", 2, True)]
)
def test_ignored_ground_truths(ignored, num_positives, dropped):
    predictions, targets = with_ignored()
    matcher = FCOS(size_ranges=[(-1, 1e8)] + [(1e8, 1e9)] * 4, center_radius=0.5)  # one location of P3 each
    criterion = Criterion(matcher=matcher, losses={"cls": FocalLoss(), "box": GIoULoss()}, ignored=ignored)
    decision = criterion.assign(predictions, targets, progress=0.0)
    seen, assignment = decision.targets, decision.assignment
    assert len(assignment.pairs) == 1
    assert seen.boxes[assignment.pairs.gt].tolist() == [[0, 0, 30, 30]]
    assert assignment.num_positives == num_positives
    assert (assignment.dropped is not None and len(assignment.dropped[0]) > 0) == dropped
    assert criterion(predictions, targets, progress=0.0)["cls"].normaliser == num_positives


class LearntTerm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, decision):
        return LossTerm(self.factor * decision.boxes.sum(), decision.assignment.num_positives)


class LearntMatcher(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.margin = torch.nn.Parameter(torch.zeros(()))

    def forward(self, predictions, targets, *, score, progress):
        return POTO()(predictions, targets, score=score, progress=progress)


def test_terms_and_matchers_with_parameters_are_part_of_the_model():
    criterion = Criterion(matcher=LearntMatcher(), losses={"cls": FocalLoss(), "learnt": LearntTerm()})
    assert set(criterion.state_dict()) == {"matcher.margin", "learnt_losses.learnt.factor"}
    predictions, targets = with_ignored()
    criterion(predictions, targets, progress=0.0)["learnt"].numerator.backward()
    assert criterion.losses["learnt"].factor.grad is not None
