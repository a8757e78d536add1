"""DDQ's queries, matching and soft targets against the dense forms; queries of any criterion."""

from dataclasses import replace

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.matchers import DDQ, DW, POTO
from la_det.modeling.criteria import Criterion, FocalLoss, GIoULoss, ObjectnessLoss, QualityFocalLoss, reduce_losses
from la_det.references import ddq as reference
from la_det.references.image import images
from la_det.references.scene import make_targets, matched_in_image, random_boxes, random_predictions
from la_det.steps.queries import DistinctQueries
from la_det.structures import Score

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

KINDS = ("object", "object", "object", "tiny", "huge", "outside", "whole")
SCORE = Score(gate="quality", square_root=True)


def make_scene(seed, kinds, size=(64, 96), num_classes=2):
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(generator, k, *size) for k in kinds]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size)
    return random_predictions(generator, targets, *size, num_classes), targets


def decide(predictions, targets, topk, threshold, **options):
    queries = DistinctQueries(nms_threshold=threshold)
    losses = {"loss": QualityFocalLoss(normaliser="targets")}
    criterion = Criterion(matcher=DDQ(topk=topk, **options), losses=losses, score=SCORE, queries=queries)
    return criterion.assign(predictions, targets, progress=0.0).assignment


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([(1, 0.7), (8, None), (3, 0.5)]))
def test_same_as_the_dense_form(data, rule):
    topk, threshold = rule
    kinds = data.draw(st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3))
    predictions, targets = make_scene(data.draw(st.integers(0, 2**32 - 1)), kinds)
    assignment = decide(predictions, targets, topk, threshold, train_empty=True)
    matched = matched_in_image(assignment, targets, len(predictions.priors))
    for i, x in enumerate(images(SCORE, predictions, targets)):
        index = reference.queries(x.p, x.boxes, x.priors.level_starts, 1000, threshold)
        assert assignment.queries.mask[i].nonzero().squeeze(1).tolist() == index.sort().values.tolist()
        cost = reference.costs(x.p[index], x.boxes[index], x.gts, x.classes, x.size)
        expected, mine = reference.match(cost, topk), matched[i][index]
        total = [cost[m >= 0, m[m >= 0]].double().sum() for m in (mine, expected)]
        torch.testing.assert_close(*total, rtol=1e-5, atol=1e-4)  # where costs are equal, others may be chosen
        counts = [torch.bincount(m[m >= 0], minlength=len(x.gts)).tolist() for m in (mine, expected)]
        assert counts[0] == counts[1]
        target = torch.zeros(len(x.p))
        here = assignment.pairs.image == i
        target[assignment.pairs.prior[here]] = assignment.target[here]
        exact = reference.soft_targets(mine, x.p[index], x.boxes[index], x.gts, x.classes)
        torch.testing.assert_close(target[index], exact, rtol=1e-4, atol=1e-6)


def test_k_is_what_the_queries_allow():
    """All ground truths of an image get as many; with more ground truths than queries nobody gets one."""
    predictions, targets = make_scene(0, [["object"] * 20, ["object"] * 3])
    queries = len(predictions.priors)
    counts = torch.bincount(decide(predictions, targets, 8, None).pairs.gt)
    assert counts.tolist() == [queries // 20] * 20 + [8] * 3
    many = make_targets([targets.boxes[:1].repeat(queries + 1, 1)], [targets.classes[:1].repeat(queries + 1)], (64, 96))
    alone = predictions.of_images(torch.tensor([0]))
    assignment = decide(alone, many, 1, None)
    assert len(assignment.pairs) == 0 and assignment.queries.valid.all()


def test_a_location_of_probability_0_is_no_query_but_nan_is():
    predictions, targets = make_scene(1, [["object"]])
    predictions.maps["logits"][0][0, :, 1, 2] = -300.0
    predictions.maps["logits"][0][0, :, 3, 3] = torch.nan
    queries = DistinctQueries(nms_threshold=None)(predictions, SCORE)
    missing = (~queries.mask[0]).nonzero().squeeze(1).tolist()
    assert missing == [12 + 2]
    with pytest.raises(FloatingPointError, match="diverged"):
        decide(predictions, targets, 1, None)


def test_the_published_queries():
    assert (DistinctQueries().topk, DistinctQueries().nms_threshold) == (1000, 0.7)


def test_a_box_of_one_pixel_has_its_whole_iou():
    predictions, _ = make_scene(1, [["object"]])
    targets = make_targets([[[3.5, 3.5, 4.5, 4.5]]], [[0]], (64, 96))
    for maps in predictions.maps.values():
        for level in maps:
            level[...] = -10.0
    predictions.maps["boxes"][0][0, :, 0, 0] = 0.5  # of the location (4, 4)
    for name in ("logits", "quality"):
        predictions.maps[name][0][0, :, 0, 0] = 10.0
    assignment = decide(predictions, targets, 1, 0.7)
    assert assignment.pairs.prior.tolist() == [0]
    torch.testing.assert_close(assignment.target, torch.ones(1), rtol=0, atol=1e-3)


def test_topk_is_of_each_level():
    predictions, _ = make_scene(2, [["object"], []])
    queries = DistinctQueries(topk=5, nms_threshold=None)(predictions, SCORE)
    levels = predictions.priors.levels[queries.prior]
    assert [torch.bincount(x).tolist() for x in levels] == [[5, 5, 5, 2, 1]] * 2
    s = SCORE.largest(predictions)
    for i in range(2):
        assert set(s[i, :96].topk(5).indices.tolist()) == set(queries.prior[i, :5].tolist())


def numbers(assignment, **options):
    predictions, targets = make_scene(3, [["object", "object"], []])
    losses = {"cls": QualityFocalLoss(normaliser="targets"), "box": GIoULoss(weighting="target")}
    criterion = Criterion(matcher=assignment, losses=losses, score=SCORE, queries=DistinctQueries(), **options)
    return criterion(predictions, targets, progress=0.0), predictions, targets, criterion


def test_an_image_without_ground_truth_takes_part_in_no_loss():
    terms, predictions, targets, criterion = numbers(DDQ())
    first = torch.tensor([0])
    alone = replace(targets, counts=targets.counts[:1], image_sizes=targets.image_sizes[:1])
    expected = criterion(predictions.of_images(first), alone, progress=0.0)
    for name, term in terms.items():
        torch.testing.assert_close(term.numerator, expected[name].numerator)
    trained = numbers(DDQ(train_empty=True))[0]
    assert trained["cls"].numerator > terms["cls"].numerator


def test_a_batch_without_ground_truths_has_zero_losses_and_gradients():
    predictions, targets = make_scene(4, [[], []])
    for levels in predictions.maps.values():
        for x in levels:
            x.requires_grad_()
    config = model_zoo.get_config("common/models/ddq_fcn").model
    for criterion in instantiate(config.criteria):
        losses = reduce_losses(criterion(predictions, targets, progress=0.0))
        assert all(loss == 0 for loss in losses.values())
        grads = torch.autograd.grad(
            sum(losses.values()), [x for name in ("logits", "boxes", "quality") for x in predictions.maps[name]]
        )
        assert all((grad == 0).all() for grad in grads)


def test_losses_are_of_queries_alone():
    """Their value and gradient: those of the official formula, over the selected rows, in double precision."""
    terms, predictions, targets, criterion = numbers(DDQ(train_empty=True))
    for levels in predictions.maps.values():
        for x in levels:
            x.requires_grad_()
    predictions = replace(predictions)
    term = criterion(predictions, targets, progress=0.0)["cls"]
    leaves = [*predictions.maps["logits"], *predictions.maps["quality"]]
    grads = torch.autograd.grad(term.numerator, leaves)
    assignment = criterion.assign(predictions, targets, 0.0).assignment
    p = (predictions.joined("logits").double().sigmoid() * predictions.joined("quality").double().sigmoid()).sqrt()
    t = torch.zeros_like(p)
    pairs = assignment.pairs
    t[pairs.image, targets.classes[pairs.gt], pairs.prior] = assignment.target.double()
    loss = (t - p).square() * torch.nn.functional.binary_cross_entropy(p, t, reduction="none")
    exact = (loss * assignment.queries.mask.unsqueeze(1)).sum()
    torch.testing.assert_close(term.numerator.double(), exact, rtol=1e-5, atol=0)
    expected = torch.autograd.grad(exact, leaves)
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-5)


def test_ddq_wants_queries():
    predictions, targets = make_scene(5, [["object"]])
    with pytest.raises(ValueError, match="DistinctQueries"):
        DDQ()(predictions.detach(), targets, score=SCORE, progress=0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.lists(st.sampled_from(KINDS), max_size=6), min_size=1, max_size=2))
def test_any_matcher_can_be_restricted_to_queries(seed, kinds):
    """POTO takes queries alone; its focal loss is that of the queries' rows."""
    predictions, targets = make_scene(seed, kinds)
    queries = DistinctQueries(topk=20, nms_threshold=0.5)
    criterion = Criterion(matcher=POTO(), losses={"cls": FocalLoss()}, queries=queries)
    assignment = criterion.assign(predictions, targets, 0.0).assignment
    chosen = queries(predictions, Score())
    assert torch.equal(assignment.queries.mask, chosen.mask)
    assert chosen.mask[assignment.pairs.image, assignment.pairs.prior].all()
    p = predictions.joined("logits").double().sigmoid()
    one_hot = torch.zeros_like(p)
    pairs = assignment.pairs
    one_hot[pairs.image, targets.classes[pairs.gt], pairs.prior] = 1
    focal = torch.where(one_hot == 1, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())
    expected = (focal * chosen.mask.unsqueeze(1)).sum()
    numerator = criterion(predictions, targets, 0.0)["cls"].numerator
    torch.testing.assert_close(numerator.double(), expected, rtol=1e-5, atol=1e-6)


def test_poto_prefers_the_queries_among_its_candidates():
    """The best location is no query: the object gets the best one of those that are."""
    predictions, _ = make_scene(6, [["object"]], num_classes=1)
    targets = make_targets([[[8.0, 8.0, 40.0, 40.0]]], [[0]], (64, 96))
    for level, (logits, boxes) in enumerate(zip(predictions.maps["logits"], predictions.maps["boxes"], strict=True)):
        logits.fill_(-9.0)
        boxes.fill_(4.0)
        if level == 0:
            for row, column, c, size in ((2, 2, 2.0, 16.0), (2, 3, 1.0, 15.0), (3, 3, 3.0, 15.5)):
                logits[0, 0, row, column] = c
                point = torch.tensor([8.0 * column + 4, 8.0 * row + 4])
                boxes[0, :, row, column] = torch.cat([point - (24 - size), (24 + size) - point])
    free = POTO()(predictions.detach(), targets, score=Score(), progress=0.0).pairs.prior.tolist()
    criterion = Criterion(matcher=POTO(), losses={"cls": FocalLoss()}, queries=DistinctQueries(nms_threshold=0.7))
    restricted = criterion.assign(predictions, targets, 0.0).assignment.pairs.prior.tolist()
    assert free == [2 * 12 + 2] and restricted == [3 * 12 + 3]


def test_what_queries_cannot_restrict_is_refused():
    predictions, targets = make_scene(7, [["object"]])
    options = dict(losses={"cls": ObjectnessLoss()}, queries=DistinctQueries())
    with pytest.raises(ValueError, match="weighs background"):
        Criterion(matcher=DW(), score=Score(gate="quality"), **options).assign(predictions, targets, 0.0)
    with pytest.raises(ValueError, match="ObjectnessLoss"):
        Criterion(matcher=POTO(), **options)(predictions, targets, 0.0)


def test_ignored_ground_truths_leave_the_queries():
    predictions, targets = make_scene(8, [["object", "object", "object"]])
    ignoring = replace(targets, ignored=torch.tensor([False, True, False]))
    criterion = Criterion(
        matcher=DDQ(), losses={"cls": FocalLoss()}, score=SCORE, queries=DistinctQueries(), ignored="dropped"
    )
    whole, part = (criterion.assign(predictions, t, 0.0).assignment for t in (targets, ignoring))
    (gone,) = whole.pairs.prior[whole.pairs.gt == 1].tolist()
    assert part.pairs.gt.tolist() == [0, 2]
    assert (whole.queries.mask ^ part.queries.mask).nonzero().tolist() == [[0, gone]]
    assert part.target.tolist() == whole.target[whole.pairs.gt != 1].tolist()
