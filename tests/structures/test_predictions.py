"""Values at pairs against loops over the maps."""

import pytest
import torch

from la_det.structures import AnchorGenerator, DeltaCodec, DensePredictions, LTRBCodec, PointGenerator, Score

GRID_SIZES = [(3, 4), (2, 2)]
NUM_CLASSES = 5


def make_predictions(per_cell: int, channels_last: bool = False) -> DensePredictions:
    generator = torch.Generator().manual_seed(per_cell)
    sizes = [4.0 + i for i in range(per_cell)]
    priors = AnchorGenerator(strides=(8, 16), sizes=sizes)(GRID_SIZES, torch.device("cpu"))

    def maps(channels):
        levels = [torch.randn(2, per_cell * channels, *hw, generator=generator) for hw in GRID_SIZES]
        levels = [x.contiguous(memory_format=torch.channels_last) for x in levels] if channels_last else levels
        return [x.requires_grad_() for x in levels]

    names = {"logits": NUM_CLASSES, "boxes": 4, "quality": 1, "filter": 1}
    return DensePredictions(priors, DeltaCodec(), {name: maps(channels) for name, channels in names.items()})


def naive(predictions: DensePredictions, name: str) -> torch.Tensor:
    """[N, R, C] by loops, in the order of the priors."""
    a, rows = predictions.priors.per_cell, []
    for level in predictions.maps[name]:
        channels = level.shape[1] // a
        for i in range(level.shape[2]):
            for j in range(level.shape[3]):
                for k in range(a):
                    rows.append(level[:, k * channels : (k + 1) * channels, i, j])
    return torch.stack(rows, 1)


@pytest.mark.parametrize("per_cell", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_at_pairs(per_cell, channels_last):
    predictions = make_predictions(per_cell, channels_last)
    r = len(predictions.priors)
    image, prior = torch.arange(2).repeat_interleave(r), torch.arange(r).repeat(2)
    for name in predictions.maps:
        expected = naive(predictions, name)[image, prior]
        assert torch.equal(predictions.at(name, image, prior), expected)
        channel = prior % expected.shape[1]
        assert torch.equal(predictions.at(name, image, prior, channel), expected[torch.arange(2 * r), channel])
        assert torch.equal(predictions.joined(name), naive(predictions, name).transpose(1, 2))
    boxes = predictions.codec.decode(naive(predictions, "boxes")[image, prior], predictions.priors, prior)
    assert torch.equal(predictions.boxes_at(image, prior), boxes)
    torch.testing.assert_close(predictions.boxes().flatten(0, 1), boxes)
    assert predictions.num_images == 2
    assert predictions.num_classes == NUM_CLASSES


def test_of_images():
    predictions = make_predictions(per_cell=2)
    predictions.image_maps["semantic"] = torch.arange(2.0).view(2, 1, 1, 1)
    chosen = predictions.of_images(torch.tensor([1, 0, 1]))
    assert chosen.num_images == 3 and chosen.image_maps["semantic"].flatten().tolist() == [1, 0, 1]
    assert torch.equal(chosen.boxes(), predictions.boxes()[[1, 0, 1]])


@pytest.mark.parametrize("per_cell", [1, 3])
def test_index_of_the_flat_map(per_cell):
    predictions = make_predictions(per_cell)
    r = len(predictions.priors)
    every = torch.meshgrid(torch.arange(2), torch.arange(r), torch.arange(NUM_CLASSES), indexing="ij")
    index = predictions.index("logits", *every)
    assert torch.equal(index.flatten().sort().values, torch.arange(index.numel()))
    assert torch.equal(predictions.flat("logits")[index], naive(predictions, "logits"))


def test_matchers_and_losses_read_one_row():
    predictions = make_predictions(per_cell=1)
    with torch.no_grad():
        seen = predictions.detach().flat("logits")
    assert not seen.requires_grad
    assert predictions.flat("logits").requires_grad
    assert seen.data_ptr() == predictions.flat("logits").data_ptr()


@pytest.mark.parametrize("pairs", [torch.tensor([0]), torch.zeros(0, dtype=torch.int64)], ids=["one level", "none"])
def test_every_level_gets_a_gradient(pairs):
    predictions = make_predictions(1)
    (predictions.boxes_at(pairs, pairs).sum() + predictions.at("logits", pairs, pairs, pairs).sum()).backward()
    for name in ("logits", "boxes"):
        assert all(level.grad is not None for level in predictions.maps[name])


def test_detach():
    predictions = make_predictions(1).detach()
    assert not any(level.requires_grad for levels in predictions.maps.values() for level in levels)


@pytest.mark.parametrize("gate", [None, "filter"])
def test_scores(gate):
    predictions, score = make_predictions(1), Score(gate)
    image, prior = torch.tensor([0, 1, 1]), torch.tensor([0, 13, 5])
    cls = torch.tensor([4, 0, 2])
    expected = naive(predictions, "logits").sigmoid()
    if gate:
        expected = expected * naive(predictions, gate).sigmoid()
    torch.testing.assert_close(score.at(predictions, image, prior, cls), expected[image, prior, cls])
    dense = torch.cat([score.dense(predictions, level).flatten(3).flatten(1, 2) for level in range(2)], 2)
    torch.testing.assert_close(dense.transpose(1, 2), expected)


def test_scores_of_several_priors_per_cell():
    predictions = make_predictions(3)
    assert Score().dense(predictions, 1).shape == (2, 3, NUM_CLASSES, 2, 2)
    gated = Score("filter").dense(predictions, 0)
    logits, gate = predictions.maps["logits"][0], predictions.maps["filter"][0]
    torch.testing.assert_close(gated[:, 1], logits[:, 5:10].sigmoid() * gate[:, 1:2].sigmoid())


@pytest.mark.parametrize("gate", [None, "filter"])
def test_logarithms_for_all_logits(gate):
    values = torch.tensor([-100.0, -30.0, -5.0, -1e-4, 0.0, 3.0, 30.0, 100.0])
    c, f = (x.flatten().requires_grad_() for x in torch.meshgrid(values, values, indexing="ij"))
    exact_c, exact_f = c.detach().double().requires_grad_(), f.detach().double().requires_grad_()
    log_p = -torch.nn.functional.softplus(-exact_c)
    log_complement = -torch.nn.functional.softplus(exact_c)
    if gate:  # ln(1 - p) = ln p + ln(e^-c + e^-f + e^(-c-f))
        log_p = log_p - torch.nn.functional.softplus(-exact_f)
        log_complement = log_p + torch.logsumexp(torch.stack([-exact_c, -exact_f, -exact_c - exact_f]), 0)
    score = Score(gate)
    for actual, expected in ((score.log_probability(c, f), log_p), (score.logs(c, f)[1], log_complement)):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-7)
        inputs, exact = ((c, f), (exact_c, exact_f)) if gate else ((c,), (exact_c,))
        grads = torch.autograd.grad(actual.sum(), inputs, retain_graph=True)
        exact_grads = torch.autograd.grad(expected.sum(), exact, retain_graph=True)
        for grad, exact_grad in zip(grads, exact_grads, strict=True):
            torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-4, atol=1e-6)


def test_points_do_not_need_anchors():
    priors = PointGenerator(strides=(8, 16))(GRID_SIZES, torch.device("cpu"))
    maps = {"boxes": [torch.ones(1, 4, *hw) for hw in GRID_SIZES]}
    boxes = DensePredictions(priors, LTRBCodec(), maps).boxes()
    assert boxes[0, 0].tolist() == [3, 3, 5, 5]
