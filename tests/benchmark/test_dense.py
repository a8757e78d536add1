"""The dense forms that the benchmark measures beside ours decide the same, whatever the options of the matchers."""

from dataclasses import replace
from inspect import signature

import pytest
import torch
from torch import Tensor

from la_det import matchers, model_zoo
from la_det.benchmark import dense, matching, scene
from la_det.matchers import matcher_at
from la_det.model_zoo.schemes import get_schemes, load, references
from la_det.modeling.criteria import Criterion
from la_det.references.image import NO_LOSS, PROGRESS
from la_det.references.scene import matched_in_image
from la_det.steps.score import DETRCost
from la_det.structures import Masks

# Exact ties and thresholds that single precision turns may differ in a few pairs.
ALLOWED = 0.01
MORE_ALLOWED = {
    # Anchors of a cell have the same predicted box in this scene, so costs of whole matchings are equal up to rounding.
    "onenet_retinanet": 0.25,
    # Beside the cost 1e6 of other locations, single precision rounds costs to sixteenths.
    "ota": 0.05,
}
WEIGHING = (matchers.DW, matchers.AutoAssign)  # their dense forms return weights
SIZE = HEIGHT, WIDTH = 192, 320
TWIN = "_r18_fpn_shapes_tiny"
TWINS = [name for name in model_zoo.list() if name.endswith(TWIN)]


def costs(default: DETRCost) -> list[dict]:
    """Values of a matcher's option `cost`, each with another value of one of the cost's own options."""
    options = {"class_weight": 20.0, "l1_weight": 0.5, "giou_weight": 20.0, "eps": 0.1, "corners": not default.corners}
    assert options.keys() == signature(type(default)).parameters.keys()
    return [{"cost": replace(default, **{name: value})} for name, value in options.items()]


FEW, INSIDE, PADDED = {"topk": 3}, {"margin": 6.0}, {"pad_to": 32}
RANGES = {"size_ranges": [(-1, 16), (16, 32), (32, 64), (64, 128), (128, 256)]}
WHOLE, NARROW, WIDE = ({"center_radius": radius} for radius in (0.0, 1.0, 2.5))
# Matcher -> options with which it decides otherwise than with its defaults. Its dense form must read them all.
OPTIONS: dict[type, list[dict]] = {
    matchers.ATSS: [FEW, INSIDE, PADDED],
    matchers.AutoAssign: [],
    matchers.DDQ: [FEW, {"train_empty": True}, *costs(matchers.DDQ().cost)],
    matchers.DW: [{"soft_prior": False}],
    matchers.DynamicATSS: [FEW, INSIDE],
    matchers.FCOS: [RANGES, WHOLE, WIDE, INSIDE],
    matchers.ForegroundLoss: [{"alpha": 0.9}, {"box_weight": 0.1}, WHOLE, NARROW, {"drop_unmatched": True}],
    matchers.Hungarian: costs(matchers.Hungarian().cost),
    matchers.LLA: [FEW, {"reg_weight": 0.1}, {"alpha": 0.9}],
    matchers.MaxIoU: [{"foreground": 0.6}, {"background": 0.2}, {"reassign_best": False}, INSIDE, PADDED],
    matchers.O2F: [FEW, {"alpha": 0.2}, NARROW, WIDE, {"mask_centers": True}],
    matchers.OneNet: costs(matchers.OneNet().cost),
    matchers.OneToOneAnchor: [],
    matchers.OneToOneCenter: [RANGES],
    matchers.OTA: [NARROW, FEW, {"reg_weight": 0.1}, {"alpha": 0.9}, {"eps": 1.0}, {"iterations": 1}],
    matchers.PAA: [{"min_iou": 0.4}, FEW, {"alpha": 0.9}],
    matchers.POTO: [{"alpha": 0.2}, WHOLE, NARROW, {"hungarian": False}, {"drop_unmatched": True}, {"outside": 0.0}],
    matchers.POTOAux: [{"alpha": 0.2}, FEW],
    matchers.SimOTA: [NARROW, {"inside_box": False}, FEW, {"box_weight": 0.1}, {"iou_eps": 0.5}],
    matchers.TAL: [FEW, {"alpha": 3.0}, {"beta": 1.0}],
    matchers.TOOD: [FEW, {"alpha": 3.0}, {"beta": 1.0}, INSIDE, {"pad_to": None}],
}
# Options that do not change what the dense form returns.
OTHERS: dict[type, set[str]] = {
    matchers.AutoAssign: {"num_classes"},  # the shape of the parameters, which the dense form reads
    matchers.O2F: {"soft_weight", "soft_targets", "num_epochs"},  # of the losses: tests/matchers/test_o2f.py
}


@pytest.fixture
def build_case(monkeypatch):
    """Builds a case of three images by the name of a scheme or of a config.

    The first image has two tiny ground truths: one contains no location, one a location whose predicted box has no
    area. The second image is smaller than the batch. The third one has no ground truth. The mask of a ground truth is
    the right half of its box.
    """
    monkeypatch.setattr(matching, "HEIGHT", HEIGHT)
    monkeypatch.setattr(matching, "WIDTH", WIDTH)

    def build(name: str, seed: int = 0) -> matching.Case:
        num_classes = 1 if name in matching.CROWD_SCHEMES else 5
        made = scene.make_scene(12, num_classes, num_images=3, seed=seed, size=SIZE)
        tiny = torch.tensor([[9.0, 9, 11, 11], [99.0, 51, 101, 53]])
        boxes = [torch.cat([made.boxes[0], tiny]), made.boxes[1], made.boxes[2][:0]]
        classes = [torch.cat([made.classes[0], torch.zeros(2).long()]), made.classes[1], made.classes[2][:0]]
        made.ltrb[0][0, :, 6, 12] = 0  # at (100, 52)
        monkeypatch.setitem(matching.SCHEMES, name, matching.SCHEMES.get(name, name))
        case = matching.build_case(name, replace(made, boxes=boxes, classes=classes), num_classes, "cpu")
        targets = replace(case.targets, image_sizes=(SIZE, (HEIGHT // 2, WIDTH // 2), SIZE))
        left, top, right, bottom = torch.cat([targets.centers[:, :1], targets.boxes[:, 1:]], 1).view(-1, 4, 1).unbind(1)
        x, y = torch.arange(WIDTH), torch.arange(HEIGHT)
        masks = ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)
        return replace(case, targets=replace(targets, masks=Masks(masks.split(targets.counts))))

    return build


def pixel_inclusive(case: matching.Case) -> matching.Case:
    """The case with priors of ATSS's convention, see `Priors.box_offset`."""
    predictions = {}
    for branch, its in case.predictions.items():
        boxes = None if its.priors.boxes is None else its.priors.boxes + 0.5
        predictions[branch] = replace(
            its, priors=replace(its.priors, points=its.priors.points + 0.5, boxes=boxes, box_offset=1)
        )
    return replace(case, predictions=predictions)


def decide(criterion: Criterion, case: matching.Case) -> Tensor:
    """What the matcher decides: the number of each prior's ground truth from 1 on [N, R], or `of_weights`."""
    with torch.no_grad():
        decided = criterion.assign(case.predictions[criterion.branch], case.targets, PROGRESS)
    targets, assignment, pairs = decided.targets, decided.assignment, decided.assignment.pairs
    num_priors, num_classes = len(decided.predictions.priors), decided.predictions.num_classes
    if isinstance(criterion.matcher, WEIGHING):
        negatives = assignment.negatives
        w_pos = torch.zeros(num_priors, len(targets)).index_put_((pairs.prior, pairs.gt), assignment.weight)
        where = negatives.image, negatives.prior, negatives.cls
        w_neg = torch.ones(targets.num_images, num_priors, num_classes).index_put_(where, negatives.weight)
        return of_weights(w_pos, w_neg)
    if assignment.classifies is not None:
        assignment = replace(assignment, pairs=pairs[assignment.classifies])
    matched = matched_in_image(assignment, targets, num_priors)
    assert len(assignment.pairs) == (matched >= 0).sum(), "a location is listed twice"
    if assignment.dropped is not None:
        matched[assignment.dropped] = NO_LOSS
    if assignment.queries is not None:
        matched[~assignment.queries.mask] = NO_LOSS
    return matched + 1


def dense_decide(criterion: Criterion, case: matching.Case) -> Tensor:
    """The same from the dense form."""
    decisions = dense.assign(criterion, case.predictions[criterion.branch], case.targets)
    if isinstance(criterion.matcher, WEIGHING):
        w_pos, w_neg, *_ = zip(*decisions, strict=True)
        return of_weights(torch.cat(w_pos, 1), torch.stack(w_neg))
    return torch.stack(decisions) + 1


def of_weights(w_pos: Tensor, w_neg: Tensor) -> Tensor:
    """Weights in one row, 0 where nothing is decided."""
    return torch.cat([w_pos.flatten(), 1 - w_neg.flatten()])


def difference(a: Tensor, b: Tensor) -> float:
    """Number of entries that differ, in shares of those that are positive in one of both."""
    differ = ~torch.isclose(a, b, rtol=1.3e-6, atol=1e-5)
    return float(differ.sum() / ((a > 0) | (b > 0)).sum())


def check(criterion: Criterion, case: matching.Case, allowed: float) -> Tensor:
    """What both decide."""
    ours = decide(criterion, case)
    assert (ours > 0).any()
    different = difference(ours, dense_decide(criterion, case))
    assert different <= (0 if isinstance(criterion.matcher, WEIGHING) else allowed)
    return ours


@pytest.mark.parametrize("name", [*sorted(matching.SCHEMES), *TWINS])
def test_decides_as_the_matcher_does(name, build_case):
    """Also with the sizes of the small twins."""
    case = build_case(name)
    for criterion in case.criteria:
        check(criterion, case, MORE_ALLOWED.get(name.rpartition("/")[2].removesuffix(TWIN), ALLOWED))


@pytest.mark.parametrize("scheme", sorted(matching.SCHEMES))
def test_decides_as_the_matcher_does_in_the_pixel_inclusive_convention(scheme, build_case):
    case = pixel_inclusive(build_case(scheme))
    for criterion in case.criteria:
        check(criterion, case, MORE_ALLOWED.get(scheme, ALLOWED))


@pytest.mark.parametrize(
    ("matcher", "options"),
    [
        pytest.param(matcher, options, id=f"{matcher.__name__} {options}")
        for matcher, rows in OPTIONS.items()
        for options in rows
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_reads_every_option(matcher, options, seed, build_case):
    scheme = next(name for name, scheme in get_schemes().items() if load(scheme.matcher) is matcher)
    case, allowed = build_case(scheme, seed), MORE_ALLOWED.get(scheme, ALLOWED)
    criterion = next(c for c in case.criteria if isinstance(matcher_at(c.matcher, PROGRESS), matcher))
    criterion.matcher = matcher()
    by_default = decide(criterion, case)
    criterion.matcher = matcher(**options)
    assert difference(check(criterion, case, allowed), by_default) > allowed, "would not show what is read"


@pytest.mark.parametrize("matcher", [matchers.ATSS(), matchers.DynamicATSS()])
def test_several_anchors_of_a_cell(matcher, build_case):
    case = build_case("date_r")
    criterion = next(c for c in case.criteria if isinstance(c.matcher, matchers.MaxIoU))
    criterion.matcher = matcher
    check(criterion, case, ALLOWED)


def test_no_option_is_forgotten():
    assert OPTIONS.keys() == references().keys()
    for matcher, rows in OPTIONS.items():
        named = {name for options in rows for name in options}
        assert named | OTHERS.get(matcher, set()) == signature(matcher).parameters.keys()


def test_a_loss_reaches_every_map_it_reads():
    case = matching.build_case("poto", scene.make_scene(3, 2), 2, "cpu")
    (criterion,) = case.criteria
    loss = dense.loss(criterion, case.predictions["main"], case.targets)
    gradients = torch.autograd.grad(loss, case.predictions["main"].maps["logits"])
    assert loss > 0 and all(g.abs().sum() > 0 for g in gradients)


def test_rules_that_would_not_fit_are_left_out():
    case = matching.build_case("loss", scene.make_scene(300, 80), 80, "cpu")
    assert not case.has_dense()
    assert matching.build_case("poto", scene.make_scene(300, 80), 80, "cpu").has_dense()


def test_on_a_gpu_there_is_none():
    case = matching.build_case("poto", scene.make_scene(3, 2), 2, "cpu")
    assert case.has_dense()
    on_gpu = replace(case.targets, boxes=case.targets.boxes.to("meta"))  # any device but the CPU
    assert not replace(case, targets=on_gpu).has_dense()
