"""Numbers of a hand-made assignment, and a training that does not notice that it is looked at."""

import copy
from collections import Counter

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch.profiler import ProfilerActivity, profile

from la_det import model_zoo
from la_det.engine import Trainer
from la_det.engine.diagnostics import AssignmentDiagnostics, diagnose, pair_keys, wanted_pairs
from la_det.modeling.criteria import Criterion
from la_det.structures import Assignment, DensePredictions, LTRBCodec, Pairs, PointGenerator, Targets

GRIDS = [(4, 4), (2, 2)]  # 32 x 32 pixels, strides 8 and 16: priors 0-15 and 16-19
LEVELS = ("p3", "p4")


def predictions(num_images):
    priors = PointGenerator(strides=(8, 16))(GRIDS, torch.device("cpu"))
    maps = {name: [torch.zeros(num_images, c, h, w) for h, w in GRIDS] for name, c in (("logits", 1), ("boxes", 4))}
    return DensePredictions(priors, LTRBCodec(), maps)


class CellOfCenter:
    """Gives each object the cell of its centre, on the second level if it is wider than 16; the first one keeps it."""

    def __call__(self, predictions, targets, *, score, progress):
        coarse = targets.boxes[:, 2] - targets.boxes[:, 0] > 16
        column, row = targets.centers.div(8 * (1 + coarse).unsqueeze(1), rounding_mode="floor").long().unbind(1)
        prior = torch.where(coarse, 16 + 2 * row + column, 4 * row + column)
        first = [
            all(p != q or i != j for q, j in zip(prior[:g], targets.image[:g], strict=True))
            for g, (p, i) in enumerate(zip(prior, targets.image, strict=True))
        ]
        return Assignment(Pairs(targets.image, prior, torch.arange(len(prior)))[torch.tensor(first, dtype=torch.bool)])


def assign(images, ignored="background"):
    """Lists of boxes; those with a fifth value are ignored."""
    instances = []
    for rows in images:
        boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
        found = Instances((32, 32), gt_boxes=Boxes(boxes), gt_classes=torch.zeros(len(rows), dtype=torch.int64))
        found.ignored = torch.tensor([len(row) == 5 for row in rows], dtype=torch.bool)
        instances.append(found)
    criterion, dense = Criterion(matcher=CellOfCenter(), losses={}, ignored=ignored), predictions(len(images))
    return criterion, criterion.assign(dense, Targets.from_instances(instances), 0.0)


A, B, C = [0, 0, 6, 6], [0, 0, 7, 7], [8, 8, 15, 15]  # A and B want one cell
LARGE = [0, 0, 30, 30]


def test_hand_made():
    now, before = assign([[A, B, C], [A], [LARGE], []]), assign([[C, B, A], [A], [LARGE], []])
    numbers = diagnose(*now, LEVELS, 0.0, pair_keys(before[1]))
    assert numbers == pytest.approx(
        {
            "positives": 4 / 5,
            "positives_p3": 3 / 5,
            "positives_p4": 1 / 5,
            "without_positive": 1 / 5,
            "conflicts": 2 / 5,
            "conflicts_p3": 2 / 4,
            "conflicts_p4": 0,
            "switched": 2 / 4,
            "switched_p3": 2 / 3,
            "switched_p4": 0,
        }
    )


def test_first_look_and_levels_without_pairs_have_no_share():
    numbers = diagnose(*assign([[A, C]]), LEVELS, 0.0)
    assert numbers == {
        "positives": 1, "positives_p3": 1, "positives_p4": 0, "without_positive": 0, "conflicts": 0, "conflicts_p3": 0
    }  # fmt: skip


@pytest.mark.parametrize("ignored", ["background", "counted"])
def test_ignored_regions_are_no_objects(ignored):
    numbers = diagnose(*assign([[C, [*A, 1], B]], ignored), LEVELS, 0.0)
    lost = ignored == "counted"  # the matcher gave B's location to the ignored region
    assert numbers["positives"] == (0.5 if lost else 1) and numbers["without_positive"] == (0.5 if lost else 0)
    assert numbers["conflicts"] == 0


@pytest.mark.parametrize("images", [[[], []], [[[*A, 1]]]])
def test_without_objects_there_is_nothing_to_say(images):
    assert diagnose(*assign(images), LEVELS, 0.0) == {}


def make_model(name="POTO/poto_3dmf_aux_r18_fpn_shapes_tiny"):
    torch.manual_seed(0)
    return instantiate(model_zoo.get_config(name).model)


def make_batch(counts=(20, 3, 0), size=64):
    generator = torch.Generator().manual_seed(1)
    batch = []
    for count in counts:
        corners = torch.rand(count, 2, generator=generator) * size / 2
        boxes = torch.cat([corners, corners + 12 + torch.rand(count, 2, generator=generator) * 16], 1)
        instances = Instances((size, size), gt_boxes=Boxes(boxes), gt_classes=torch.arange(count) % 10)
        batch.append({"image": torch.rand(3, size, size, generator=generator) * 255, "instances": instances})
    return batch


def test_an_object_wants_what_it_gets_alone():
    model, batch = make_model().eval(), make_batch()
    alone = [
        {"image": record["image"], "instances": record["instances"][i]}
        for record in batch
        for i in range(len(record["instances"]))
    ]
    for k, together in enumerate(model.assignments(batch, 0.5)):
        wanted = wanted_pairs(model.criteria[k], together, torch.arange(23), 0.5)
        found = sorted(zip(wanted.gt.tolist(), wanted.prior.tolist(), wanted.image.tolist(), strict=True))
        expected = []
        for gt, record in enumerate(alone):
            pairs = model.assignments([record], 0.5)[k].assignment.pairs
            expected += [(gt, prior, int(gt >= 20)) for prior in pairs.prior.tolist()]
        assert found == sorted(expected)


def make_trainer(model, period=None, amp_dtype=None, size=64, looked_at=(20, 3, 0)):
    batch = make_batch((2, 1), size)
    trainer = Trainer(model, [batch] * 9, torch.optim.SGD(model.parameters(), 1e-3), amp_dtype=amp_dtype)
    if period:
        trainer.register_hooks([AssignmentDiagnostics(make_batch(looked_at), period)])
    return trainer


def operators(trainer):
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer.train(0, 1)
    return Counter({event.key: event.count for event in profiler.key_averages()})


def test_same_operators_on_other_steps():
    model = make_model("POTO/poto_r18_fpn_shapes_tiny")
    copies = [copy.deepcopy(model) for _ in range(2)]
    operators(make_trainer(copy.deepcopy(model)))  # makes what is made once, such as the priors
    without = operators(make_trainer(model))
    assert without["aten::convolution"] > 20
    assert operators(make_trainer(copies[0], period=2)) == without
    assert operators(make_trainer(copies[1], period=1)) != without


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
def test_training_goes_on_as_if_nobody_looked(amp_dtype):
    model = make_model()
    # oneDNN leaves parts of the gradient of a bfloat16 convolution on a 1 x 1 map, P6 of smaller images, uninitialised.
    size = 64 if amp_dtype is None else 128
    alone, watched = (make_trainer(copy.deepcopy(model), period, amp_dtype, size) for period in (None, 1))
    states = []
    for trainer in (alone, watched):
        torch.manual_seed(2)
        trainer.train(0, 3)
        assert all(module.training for module in trainer.model.modules())
        states.append((trainer.model.state_dict(), torch.get_rng_state()))
    (weights, generator), (watched_weights, watched_generator) = states
    assert any("running_mean" in name for name in weights)
    assert all(torch.equal(value, watched_weights[name]) for name, value in weights.items())
    assert torch.equal(generator, watched_generator)
    assert alone.storage.latest()["total_loss"] == watched.storage.latest()["total_loss"]
    looks = watched.storage.latest()
    assert looks["assignment/main/POTO/positives"] == (1, 2)
    assert {"assignment/main/POTOAux/conflicts", "assignment/main/POTO/switched_p3"} <= looks.keys()


def test_a_checkpoint_keeps_the_last_look():
    first, model = make_trainer(make_model(), 1), make_model()
    first.train(0, 1)
    second = make_trainer(model, 1)
    second.load_state_dict(first.state_dict())
    second.train(0, 1)
    assert "assignment/main/POTO/switched" not in first.storage.latest()
    assert second.storage.latest()["assignment/main/POTO/switched"] == (0, 0), "same weights, same assignment"


@pytest.mark.parametrize("looked_at", [(20, 3), (3, 20, 0)])
def test_a_look_at_another_batch_is_forgotten(looked_at):
    """As after a resume with another number of processes."""
    first = make_trainer(make_model(), 1)
    first.train(0, 1)
    second = make_trainer(make_model(), 1, looked_at=looked_at)
    second.load_state_dict(first.state_dict())
    second.train(0, 1)
    assert "assignment/main/POTO/positives" in second.storage.latest()
    assert "assignment/main/POTO/switched" not in second.storage.latest()


def test_predictions_that_are_not_finite_end_the_look_only(caplog):
    trainer = make_trainer(make_model(), 1)
    trainer.train(0, 1)
    with torch.no_grad():
        trainer.model.pixel_std.fill_(float("nan"))
    trainer.iter = 7
    trainer.after_step()
    assert "Iteration 7: no look at the assignment" in caplog.text
    assert trainer.model.training
