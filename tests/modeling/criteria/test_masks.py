"""CondInst's mask and semantic losses against loops over instances and pixels, and at the edges."""

from pathlib import Path

import pytest
import torch

from la_det.benchmark.memory import peak_extra_mib
from la_det.modeling.criteria import Decision, MaskLoss, SemanticLoss
from la_det.modeling.criteria.masks import dice_of_pairs, semantic_targets
from la_det.modeling.heads.dynamic_mask_head import mask_logits
from la_det.structures import Assignment, DensePredictions, LTRBCodec, Masks, Pairs, PointGenerator, Score, Targets

SIZE, K = (64, 96), 4
GRIDS = [(8, 12), (4, 6)]


def make_predictions(num_images=2) -> DensePredictions:
    torch.manual_seed(0)
    priors = PointGenerator(strides=(8, 16))(GRIDS, torch.device("cpu"))
    maps = {
        "logits": [torch.randn(num_images, K, *size) for size in GRIDS],
        "controller": [torch.randn(num_images, 169, *size).mul_(0.3).requires_grad_() for size in GRIDS],
    }
    image_maps = {
        "mask_features": torch.randn(num_images, 8, *GRIDS[0], requires_grad=True),
        "semantic": torch.randn(num_images, K, *GRIDS[0], requires_grad=True),
    }
    return DensePredictions(priors, LTRBCodec(), maps, image_maps)


def make_targets(counts, size=SIZE) -> Targets:
    generator = torch.Generator().manual_seed(sum(counts))
    masks = []
    for g in counts:
        masks.append(torch.zeros(g, *size, dtype=torch.bool))
        for mask in masks[-1]:
            y, x, h, w = (torch.rand(4, generator=generator) * torch.tensor([40, 70, 40, 60])).long().tolist()
            mask[y : y + h + 1, x : x + w + 1] = True
    total = sum(counts)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    classes = torch.randint(K, (total,), generator=generator)
    sizes = (size,) * len(counts)
    return Targets(torch.zeros(total, 4), classes, image, tuple(counts), sizes, masks=Masks(tuple(masks)))


def make_assignment(targets, num_pairs) -> Assignment:
    gt = torch.randint(max(len(targets), 1), (num_pairs,), generator=torch.Generator().manual_seed(1))
    prior = torch.randint(120, (num_pairs,), generator=torch.Generator().manual_seed(2))
    return Assignment(Pairs(targets.image[gt], prior, gt))


@pytest.mark.parametrize("num_pairs", [3, 70])  # within a chunk, and several
def test_dice_of_every_pair(num_pairs):
    predictions, targets = make_predictions(), make_targets([2, 3])
    assignment = make_assignment(targets, num_pairs)
    actual = dice_of_pairs(predictions, targets, assignment)
    padded = torch.zeros(len(targets), *SIZE)
    padded[:] = torch.cat(targets.masks.of_images)
    expected = []
    for i in range(num_pairs):
        image, prior, gt = (x[i] for x in (assignment.pairs.image, assignment.pairs.prior, assignment.pairs.gt))
        logits = mask_logits(
            predictions.image_maps["mask_features"],
            predictions.priors.points[:96],
            image.view(1),
            predictions.joined("controller")[image, :, prior].view(1, -1),
            predictions.priors.points[prior].view(1, 2),
            predictions.priors.strides[prior].view(1),
        )
        a, b = logits.sigmoid()[0], padded[gt, 2::4, 2::4]
        expected.append(1 - 2 * (a * b).sum() / ((a * a).sum() + (b * b).sum() + 1e-5))
    expected = torch.stack(expected)
    torch.testing.assert_close(actual, expected)
    leaves = [*predictions.maps["controller"], predictions.image_maps["mask_features"]]
    for actual_grad, expected_grad in zip(
        torch.autograd.grad(actual.mean(), leaves), torch.autograd.grad(expected.mean(), leaves), strict=True
    ):
        torch.testing.assert_close(actual_grad, expected_grad, rtol=1e-3, atol=1e-6)
    term = MaskLoss(weight=2.0)(Decision(predictions, targets, assignment, Score()))
    torch.testing.assert_close(term.weight * term.numerator / term.normaliser, 2 * expected.mean())
    assert term.scope == "local"


def test_saved_tensors_do_not_grow_with_the_pairs():
    """Only parameters and masks of the pairs are kept for the backward pass, not their maps."""
    predictions, targets = make_predictions(), make_targets([2, 3])

    def saved_bytes(num_pairs):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            dice_of_pairs(predictions, targets, make_assignment(targets, num_pairs))
        return sum(sizes)

    one_map = 10 * 96 * 4  # the smallest thing that grew if it were kept: a pair's input of the mask head
    assert saved_bytes(320) - saved_bytes(64) < 256 * one_map / 2


@pytest.mark.parametrize("counts", [[0, 0], [2, 0]])
def test_without_any_pair_every_input_has_a_gradient(counts):
    predictions, targets = make_predictions(), make_targets(counts)
    nothing = torch.zeros(0, dtype=torch.int64)
    assignment = Assignment(Pairs(nothing, nothing, nothing))
    mask = MaskLoss()(Decision(predictions, targets, assignment, Score()))
    assert mask.numerator == 0 and mask.normaliser == 0 and mask.floor == 1
    semantic = SemanticLoss()(Decision(predictions, targets, assignment, Score()))
    (mask.numerator + semantic.numerator).backward()
    features = predictions.image_maps["mask_features"]
    assert all(x.grad is not None and not x.grad.any() for x in [*predictions.maps["controller"], features])
    assert predictions.image_maps["semantic"].grad.any()


def test_semantic_targets_are_the_smallest_instances_classes():
    targets = make_targets([5, 0, 4], size=(62, 90))  # smaller than the padded batch
    actual = semantic_targets(targets, K, 8, (8, 12))
    masks, areas = list(torch.cat(targets.masks.of_images)), torch.cat(targets.masks.of_images).flatten(1).sum(1)
    for n in range(3):
        for i in range(8):
            for j in range(12):
                y, x = 8 * i + 4, 8 * j + 4
                covering = [g for g in range(9) if targets.image[g] == n and y < 62 and x < 90 and masks[g][y, x]]
                smallest = min(covering, key=lambda g: areas[g], default=None)
                assert actual[n, i, j] == (K if smallest is None else targets.classes[smallest])
    assert (actual < K).any() and (actual[1] == K).all()


def test_semantic_loss_is_the_focal_loss_over_foreground_cells():
    predictions, targets = make_predictions(), make_targets([2, 3])
    nothing = torch.zeros(0, dtype=torch.int64)
    term = SemanticLoss()(Decision(predictions, targets, Assignment(Pairs(nothing, nothing, nothing)), Score()))
    classes = semantic_targets(targets, K, 8, GRIDS[0])
    logits = predictions.image_maps["semantic"]
    is_class = classes.unsqueeze(1) == torch.arange(K).view(1, -1, 1, 1)
    p_t = torch.where(is_class, logits.sigmoid(), 1 - logits.sigmoid())
    alpha = torch.where(is_class, 0.25, 0.75)
    torch.testing.assert_close(term.weight * term.numerator, (-alpha * (1 - p_t) ** 2 * p_t.log()).sum())
    assert term.normaliser == (classes < K).sum() and term.floor == 1 and term.scope == "local"


def test_dice_of_empty_and_full_masks():
    predictions, targets = make_predictions(1), make_targets([2])
    targets.masks.of_images[0][0], targets.masks.of_images[0][1] = False, True
    assignment = Assignment(Pairs(torch.zeros(2, dtype=torch.int64), torch.tensor([5, 5]), torch.tensor([0, 1])))
    empty, full = dice_of_pairs(predictions, targets, assignment).tolist()
    assert empty == pytest.approx(1.0, abs=1e-6) and 0 < full < 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory with Linux's /proc")
def test_300_instances_at_full_size_fit_in_2_gib():
    size, grid = (800, 1333), (100, 168)
    priors = PointGenerator(strides=(8,))([grid], torch.device("cpu"))
    controller = torch.randn(1, 169, *grid, requires_grad=True)
    features = torch.randn(1, 8, *grid, requires_grad=True)
    prior = torch.arange(300) * 56

    def forward_and_backward():
        masks = Masks((torch.rand(300, 1, 1).expand(300, *size) > 0.5,))
        predictions = DensePredictions(priors, LTRBCodec(), {"controller": [controller]}, {"mask_features": features})
        gt = torch.arange(300)
        zeros = torch.zeros(300, dtype=torch.int64)
        targets = Targets(torch.zeros(300, 4), zeros, zeros, (300,), (size,), masks=masks)
        assert targets.masks.centroids.shape == (300, 2)
        dice_of_pairs(predictions, targets, Assignment(Pairs(zeros, prior, gt))).mean().backward()

    assert peak_extra_mib(forward_and_backward, "cpu") < 2048
    assert controller.grad.any() and features.grad.any()
