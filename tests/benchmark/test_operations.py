"""How many operations and waits every scheme needs, and that the counter counts them."""

from unittest.mock import patch

import pytest
import torch

from la_det.benchmark.matching import SCHEMES, scheme_case
from la_det.benchmark.operations import count_operations
from la_det.matchers import paa

# scheme -> operations and waits at most, forward and backward, at 20 ground truths per image. Waits are exact; torch's
# versions differ by a few operations. PAA's are besides its fits.
LIMITS = {
    "anchor": (250, 1),
    "atss": (275, 1),
    "autoassign": (500, 2),
    "center": (200, 1),
    "date_f": (500, 3),
    "date_f_crowdhuman": (700, 7),
    "date_r": (600, 3),
    "ddq_fcn": (650, 4),  # of these one for the NMS of each image, as in poto_distinct
    "dw": (425, 2),
    "dynamic_atss": (275, 1),
    "fcos": (250, 1),
    "fcos_wo_ctrness": (225, 1),
    "lla": (550, 8),
    "loss": (250, 2),
    "o2f": (350, 1),
    "onenet_fcos": (425, 5),
    "onenet_min": (425, 2),
    "onenet_retinanet": (450, 5),
    "ota": (750, 3),  # 7 in each of Sinkhorn's 50 iterations
    "paa": (500, 3),
    "poto": (225, 1),
    "poto_3dmf": (275, 1),
    "poto_3dmf_aux": (475, 4),
    "poto_argmax": (250, 1),
    "poto_distinct": (275, 4),
    "simota": (525, 3),
    "simota_square": (425, 3),
    "tal_dual": (550, 3),
    "tood": (425, 2),
}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_step_needs_few(scheme):
    case = scheme_case(scheme, 20, "cpu")
    case.train()  # caches of a training are filled
    with patch.object(paa, "em_step", wraps=paa.em_step) as em_step:
        counts = count_operations(case.train)
    operations, waits = LIMITS[scheme]
    operations, waits = operations + 30 * em_step.call_count, waits + em_step.call_count // paa.LOOK
    assert 0 < counts.operations.total() <= operations, counts.operations.most_common()
    assert 0 < counts.waits.total() <= waits, counts.waits


X = torch.tensor([[3.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
MASK = torch.tensor([True, False])
TWO = torch.tensor([1, 1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: X.view(3, 2),
        lambda: X.t()[0, 1:].unsqueeze(0).expand(4, 2),
        lambda: X.split(1),
        lambda: X.detach(),
        lambda: torch.empty(3),
        lambda: torch.empty_like(X),
        lambda: X.shape,
    ],
)
def test_views_and_allocations_are_free(call):
    counts = count_operations(call)
    assert not counts.operations and not counts.waits


@pytest.mark.parametrize(
    "call",
    [
        lambda: X + 1,
        lambda: X[TWO],
        lambda: torch.where(MASK, TWO, 0),
        lambda: torch.nonzero_static(X, size=3),
        lambda: X.clone(),
        lambda: TWO.repeat_interleave(TWO, output_size=2),
    ],
)
def test_operations_that_do_not_wait(call):
    counts = count_operations(call)
    assert counts.operations.total() >= 1 and not counts.waits


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: X.nonzero(), "nonzero"),
        (lambda: torch.where(X > 0), "nonzero"),
        (lambda: X[MASK], "index"),
        (lambda: X.masked_select(X > 0), "masked_select"),
        (lambda: X.clone().index_put_((MASK,), torch.ones(3)), "index_put_"),
        (lambda: TWO.unique(), "_unique2"),
        (lambda: TWO.bincount(), "bincount"),
        (lambda: X.sum().item(), "_local_scalar_dense"),
        (lambda: int(TWO.sum()), "_local_scalar_dense"),
        (lambda: bool(MASK.any()), "_local_scalar_dense"),
        (lambda: X.tolist(), "tolist"),
        (lambda: X.cpu(), "cpu"),
        (lambda: torch.equal(X, X), "equal"),
        (lambda: TWO.repeat_interleave(TWO), "repeat_interleave"),
        (lambda: torch.repeat_interleave(X, TWO, dim=0), "repeat_interleave"),
    ],
)
def test_waits(call, name):
    assert count_operations(call).waits == {name: 1}


def test_operations_have_names_and_numbers():
    counts = count_operations(lambda: (X.exp(), X.exp(), X.sum()))
    assert counts.operations == {"exp": 2, "sum": 1}


def test_backward_pass_counts():
    x = X.clone().requires_grad_()

    def run():
        return x.exp().sum()

    loss = run()
    forward = count_operations(run)
    both = count_operations(lambda: run().backward())
    backward = count_operations(lambda: loss.backward())
    assert forward.operations == {"exp": 1, "sum": 1}
    assert backward.operations["mul"] == both.operations["mul"] == 1
    assert both.operations.total() > forward.operations.total()


def test_a_wait_in_the_backward_pass_counts():
    class Waits(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * grad.sum().item()

    x = torch.ones(2, requires_grad=True)
    assert count_operations(lambda: Waits.apply(x).sum().backward()).waits.total() == 1


def test_takes_the_path_of_a_gpu():
    """A CPU works on the logits chunk by chunk."""
    case = scheme_case("poto", 20, "cpu")
    case.train()
    once = count_operations(case.train).operations
    assert once["sigmoid"] + once["sigmoid_"] < 8, once
