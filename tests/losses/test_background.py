"""The background pass and its analytic gradients against autograd in double precision."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from la_det.losses.background import background_loss
from la_det.modeling.criteria import Decision, FocalLoss
from la_det.references.scene import make_targets
from la_det.structures import AnchorGenerator, Assignment, DensePredictions, LTRBCodec, Pairs, Score, chunks

GRID_SIZES = [(5, 7), (3, 4), (1, 1)]


def make_predictions(num_classes=3, per_cell=1, spread=3.0, memory_format=torch.contiguous_format):
    generator = torch.Generator().manual_seed(num_classes)
    sizes = [4.0 + i for i in range(per_cell)]
    priors = AnchorGenerator(strides=(8, 16, 32), sizes=sizes)(GRID_SIZES, torch.device("cpu"))

    def maps(channels):
        levels = [spread * torch.randn(2, channels, *hw, generator=generator) for hw in GRID_SIZES]
        return [x.contiguous(memory_format=memory_format).requires_grad_() for x in levels]

    names = {"logits": per_cell * num_classes, "filter": per_cell}
    return DensePredictions(priors, LTRBCodec(), {name: maps(channels) for name, channels in names.items()})


def exact_maps(predictions):
    """The logits and gates of all levels in double precision, as leaves."""
    return {name: [x.detach().double().requires_grad_() for x in m] for name, m in predictions.maps.items()}


ROOT = Score("filter", square_root=True)
SCORES = [Score(), Score("filter"), ROOT]


def exact_background(maps, gate, square_root=False):
    """-p^2 ln(1 - p), summed."""
    total = 0
    for c, f in zip(maps["logits"], maps["filter"], strict=True):
        p, log_complement = c.sigmoid(), -F.softplus(c)
        if gate:  # ln(1 - p) = ln p + logsumexp(-c, -f, -c - f)
            log_p = -F.softplus(-c) - F.softplus(-f)
            p, log_complement = log_p.exp(), log_p + torch.logsumexp(torch.stack([-c, -f.expand_as(c), -c - f]), 0)
            if square_root:  # 1 - sqrt(P) = (1 - P) / (1 + sqrt(P))
                p = (log_p / 2).exp()
                log_complement = log_complement - p.log1p()
        total = total - (p**2 * log_complement).sum()
    return total


def entries(num_pairs, per_cell=1, num_classes=3):
    generator = torch.Generator().manual_seed(num_pairs)
    num_priors = per_cell * sum(h * w for h, w in GRID_SIZES)
    return tuple(torch.randint(n, (num_pairs,), generator=generator) for n in (2, num_priors, num_classes))


def compare_gradients(loss, predictions, exact_loss, maps, names, tolerance=1e-5):
    grads = torch.autograd.grad(loss, [x for name in names for x in predictions.maps[name]])
    expected = torch.autograd.grad(exact_loss, [x for name in names for x in maps[name]])
    scale = max(float(g.abs().max()) for g in expected)
    for grad, exact in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad.double(), exact, rtol=0, atol=max(tolerance * scale, 1e-12))


@pytest.mark.parametrize("score", SCORES, ids=["plain", "gated", "root"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_pairs", [0, 1, 40])
@pytest.mark.parametrize("chunk", [4, 1 << 16])
def test_sum_and_gradients(monkeypatch, score, memory_format, num_pairs, chunk):
    """With corrections at chosen entries, some of them chosen several times."""
    monkeypatch.setattr(chunks, "CPU_CHUNK", chunk)
    predictions = make_predictions(memory_format=memory_format)
    chosen = entries(num_pairs)
    total, c, f = background_loss(predictions, score, *chosen)
    gate = score.gate
    assert (f is None) == (gate is None)

    maps = exact_maps(predictions)
    exact = exact_background(maps, gate, score.square_root)
    torch.testing.assert_close(total.double(), exact, rtol=1e-6, atol=0)
    at = DensePredictions(predictions.priors, predictions.codec, maps)
    exact_c = at.at("logits", *chosen)
    assert torch.equal(c.double(), exact_c)
    loss, exact_loss = 2 * total + c.square().sum(), 2 * exact + exact_c.square().sum()
    if gate:
        exact_f = at.at("filter", *chosen[:2]).squeeze(-1)
        assert torch.equal(f.double(), exact_f)
        loss, exact_loss = loss + f.sin().sum(), exact_loss + exact_f.sin().sum()
    compare_gradients(loss, predictions, exact_loss, maps, ["logits", "filter"] if gate else ["logits"])


def test_several_priors_per_cell():
    predictions = make_predictions(per_cell=3)
    chosen = entries(40, per_cell=3)
    total, c, _ = background_loss(predictions, Score(), *chosen)
    maps = exact_maps(predictions)
    exact_c = DensePredictions(predictions.priors, predictions.codec, maps).at("logits", *chosen)
    assert torch.equal(c.double(), exact_c)
    exact_loss = exact_background(maps, None) + exact_c.exp().sum()
    compare_gradients(total + c.exp().sum(), predictions, exact_loss, maps, ["logits"])


def test_one_class_and_large_maps():
    """K = 1, and a level of more than one chunk."""
    predictions = make_predictions(num_classes=1)
    priors = AnchorGenerator(strides=(8, 16, 32))([(300, 400), *GRID_SIZES[1:]], torch.device("cpu"))
    predictions = replace(predictions, priors=priors)
    generator = torch.Generator().manual_seed(0)
    predictions.maps["logits"][0] = torch.randn(2, 1, 300, 400, generator=generator).requires_grad_()
    predictions.maps["filter"][0] = torch.randn(2, 1, 300, 400, generator=generator).requires_grad_()
    nothing = (torch.zeros(0, dtype=torch.int64),) * 3
    for gate in (None, "filter"):
        maps = exact_maps(predictions)
        total, _, _ = background_loss(predictions, Score(gate), *nothing)
        exact = exact_background(maps, gate)
        torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=0)
        compare_gradients(total, predictions, exact, maps, ["logits", "filter"] if gate else ["logits"])


@pytest.mark.parametrize("c", [-100.0, -88.0, -20.0, 0.0, 20.0, 60.0, 88.0, 100.0, 1e30])
def test_extreme_logits(c):
    predictions = make_predictions()
    for level in predictions.maps["logits"]:
        level.data.fill_(c)
    total, _, _ = background_loss(predictions, Score(), *entries(0))
    maps = exact_maps(predictions)
    exact = exact_background(maps, None)
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-12)
    compare_gradients(total, predictions, exact, maps, ["logits"])


@pytest.mark.parametrize("num_dropped", [None, 9])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("c", [None, -100.0, 20.0, 100.0])
def test_plain_cross_entropy(monkeypatch, num_dropped, whole, c):
    if whole:
        monkeypatch.setattr(chunks, "in_chunks", lambda device: False)
    predictions, chosen = make_predictions(), entries(40)
    for level in predictions.maps["logits"] if c is not None else ():
        level.data.fill_(c)
    dropped = None if num_dropped is None else entries(num_dropped)[:2]
    total, values, f = background_loss(predictions, Score(), *chosen, dropped, focal=False)
    assert f is None
    maps = exact_maps(predictions)
    counted = torch.ones(2, len(predictions.priors), dtype=torch.bool)
    if dropped is not None:
        counted[dropped] = False
    at = DensePredictions(predictions.priors, predictions.codec, maps)
    exact = (F.softplus(at.joined("logits")) * counted.unsqueeze(1)).sum()
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-12)
    exact_loss = exact + at.at("logits", *chosen).sin().sum()
    compare_gradients(total + values.sin().sum(), predictions, exact_loss, maps, ["logits"])


def test_a_gated_score_has_no_plain_cross_entropy():
    with pytest.raises(ValueError, match="no form for gated scores"):
        background_loss(make_predictions(), Score("filter"), *entries(0), focal=False)


@pytest.mark.parametrize("square_root", [False, True])
@pytest.mark.parametrize("f", [-100.0, -20.0, 0.0, 20.0, 55.0, 100.0, 3e38])
@pytest.mark.parametrize("c", [-100.0, -20.0, 0.0, 20.0, 55.0, 100.0, 3e38])
def test_extreme_logits_with_a_gate(c, f, square_root):
    """Exact up to logits of 60; beyond, the loss stays where it is and gradients stay finite."""
    predictions = make_predictions()
    for name, value in (("logits", c), ("filter", f)):
        for level in predictions.maps[name]:
            level.data.fill_(value)
    total, _, _ = background_loss(predictions, Score("filter", square_root), *entries(0))
    maps = exact_maps(predictions)
    for name, levels in maps.items():
        maps[name] = [x.detach().clamp(max=60).requires_grad_() for x in levels]
    exact = exact_background(maps, "filter", square_root)
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-12)
    compare_gradients(total, predictions, exact, maps, ["logits", "filter"], tolerance=1e-4)


@pytest.mark.parametrize("score", SCORES, ids=["plain", "gated", "root"])
def test_score_says_the_same_everywhere(score):
    """At entries, of all classes, and as logarithms."""
    predictions, (image, prior, cls) = make_predictions(), entries(40)
    p = score.at(predictions, image, prior, cls)
    dense = torch.cat([score.dense(predictions, level).squeeze(1).flatten(2) for level in range(3)], 2)
    torch.testing.assert_close(dense[image, cls, prior], p)
    c, f = score.logits_at(predictions, image, prior, cls)
    torch.testing.assert_close(score.log_probability(c, f).exp(), p)
    torch.testing.assert_close(score.logs(c, f)[1].exp(), 1 - p, rtol=1e-4, atol=1e-6)
    exact = c.sigmoid() if f is None else c.sigmoid() * f.sigmoid()
    torch.testing.assert_close(p, exact.sqrt() if score.square_root else exact)


def loss_and_gradients(predictions, gate, chosen, dropped):
    total, c, f = background_loss(predictions, Score(gate), *chosen, dropped)
    loss = 2 * total + c.square().sum() + (0 if f is None else f.sin().sum())
    leaves = [x for name in ("logits", "filter") for x in predictions.maps[name]]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=gate is None)
    return [x for x in (loss.detach(), c.detach(), f, *gradients) if x is not None]


@pytest.mark.parametrize("gate", [None, "filter"])
@pytest.mark.parametrize("num_dropped", [None, 0, 9])
@pytest.mark.parametrize("per_cell", [1, 3])
@pytest.mark.parametrize("chunk", [4, 1 << 16])
def test_whole_maps_give_the_same_as_chunks(monkeypatch, gate, num_dropped, per_cell, chunk):
    """A GPU works on whole maps."""
    monkeypatch.setattr(chunks, "CPU_CHUNK", chunk)
    predictions = make_predictions(per_cell=per_cell)
    chosen = entries(40, per_cell)
    dropped = None if num_dropped is None else entries(num_dropped, per_cell)[:2]
    in_parts = loss_and_gradients(predictions, gate, chosen, dropped)
    monkeypatch.setattr(chunks, "in_chunks", lambda device: False)
    whole = loss_and_gradients(replace(predictions), gate, chosen, dropped)
    assert len(whole) == len(in_parts) == (5 if gate is None else 9)
    torch.testing.assert_close(whole, in_parts, rtol=1e-6, atol=1e-6)
    if num_dropped:
        everything = loss_and_gradients(replace(predictions), gate, chosen, None)
        assert everything[0] > whole[0]


@pytest.mark.parametrize("gate", [None, "filter"])
def test_nan_shows_in_the_loss(gate):
    predictions = make_predictions()
    predictions.maps["logits"][1].data[1, 2, 0, 3] = torch.nan
    assert background_loss(predictions, Score(gate), *entries(0))[0].isnan()


@pytest.mark.parametrize("gate", [None, "filter"])
@pytest.mark.parametrize("extreme", [None, -100.0, 100.0])
def test_focal_loss(gate, extreme):
    """The official formula with a target for every entry, in double precision."""
    predictions = make_predictions()
    if extreme is not None:
        for name in ("logits", "filter"):
            for level in predictions.maps[name]:
                level.data.fill_(extreme)
    targets = make_targets([torch.rand(3, 4), torch.rand(1, 4)], [[0, 2, 1], [2]])
    pairs = Pairs(targets.image, torch.tensor([3, 40, 47, 3]), torch.arange(4))
    term = FocalLoss(alpha=0.3, weight=2.0)(Decision(predictions, targets, Assignment(pairs), Score(gate)))
    assert term.normaliser == 4

    maps, loss = exact_maps(predictions), 0
    y = torch.zeros(2, len(predictions.priors), 3)
    y[pairs.image, pairs.prior, targets.classes] = 1
    levels = y.split([h * w for h, w in GRID_SIZES], 1)
    for c, f, target, hw in zip(maps["logits"], maps["filter"], levels, GRID_SIZES, strict=True):
        target = target.transpose(1, 2).unflatten(2, hw)
        c, f = (x.clamp(max=60) for x in (c, f)) if gate else (c, f)
        log_p, log_complement = -F.softplus(-c), -F.softplus(c)
        if gate:
            log_p = log_p - F.softplus(-f)
            log_complement = log_p + torch.logsumexp(torch.stack([-c, -f.expand_as(c), -c - f]), 0)
        positive = -0.3 * (2 * log_complement).exp() * log_p
        negative = -0.7 * (2 * log_p).exp() * log_complement
        loss = loss + 2 * (target * positive + (1 - target) * negative).sum()
    torch.testing.assert_close((term.weight * term.numerator).double(), loss, rtol=1e-5, atol=1e-6)
    if extreme is None:
        compare_gradients(
            term.weight * term.numerator, predictions, loss, maps, ["logits", "filter"] if gate else ["logits"]
        )
    else:
        names = ["logits", "filter"] if gate else ["logits"]
        grads = torch.autograd.grad(term.numerator, [x for name in names for x in predictions.maps[name]])
        assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("gate", [None, "filter"])
@pytest.mark.parametrize("per_cell", [1, 3])
def test_dropped_priors_have_no_part(gate, per_cell):
    """Neither in the sum nor in the gradients, whatever their logits; one that is dropped twice, neither."""
    predictions = make_predictions(per_cell=per_cell)
    image, prior, _ = entries(9, per_cell)
    image[1], prior[1] = image[0], prior[0]
    total, c, _ = background_loss(predictions, Score(gate), *entries(0), (image, prior))
    maps = exact_maps(predictions)
    kept = torch.ones(2, len(predictions.priors), dtype=torch.bool)
    kept[image, prior] = False
    sizes = [per_cell * h * w for h, w in GRID_SIZES]
    exact = 0
    for level, mask in enumerate(kept.split(sizes, 1)):
        part = {name: [x[level].unflatten(1, (per_cell, -1)).permute(0, 3, 4, 1, 2)] for name, x in maps.items()}
        part = {name: [x[0].flatten(1, 3)[mask]] for name, x in part.items()}
        exact = exact + exact_background(part, gate)
    torch.testing.assert_close(total.double(), exact, rtol=1e-6, atol=0)
    compare_gradients(total, predictions, exact, maps, ["logits", "filter"] if gate else ["logits"])
