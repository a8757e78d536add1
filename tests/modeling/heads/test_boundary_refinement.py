import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import deform_conv2d

from la_det.modeling.heads import BoundaryRefinement, RefinedPredictor
from la_det.modeling.heads.boundary_refinement import boundary_points, refine, sample
from la_det.structures import PointGenerator


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(1, 1), (1, 7), (5, 3), (13, 21)]),
    spread=st.sampled_from([0.1, 3.0, 100.0]),
)
def test_sampling_equals_deformable_convolution(seed, size, spread):
    """Also in gradients, and for samples beyond the borders."""
    torch.manual_seed(seed)
    maps = (100 * torch.randn(2, 4, *size)).requires_grad_()
    offset = (spread * torch.randn(2, 8, *size)).requires_grad_()
    up = torch.randn(2, 4, *size)
    expected = deform_conv2d(maps, offset, torch.ones(4, 1, 1, 1))
    actual = sample(maps, offset)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-3)
    for grad, expected_grad in zip(
        torch.autograd.grad(actual, (maps, offset), up),
        torch.autograd.grad(expected, (maps, offset), up),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-3)


def test_sides_are_read_in_the_middle_of_the_coarse_sides():
    distances = torch.tensor([8.0, 16.0, 24.0, 32.0]).view(1, 4, 1, 1).expand(1, 4, 5, 6)
    dy, dx = boundary_points(distances, torch.zeros(1, 8, 5, 6), stride=8)[0, :, 0, 0].view(4, 2).T
    assert dy.tolist() == [0, -2, 0, 4]
    assert dx.tolist() == [-1, 0, 3, 0]


def test_agreeing_boxes_are_not_changed():
    """If all locations predict one box, then each side is the same wherever it is read."""
    priors = PointGenerator(strides=(8,))([(12, 12)], torch.device("cpu"))
    points = priors.points.T.unflatten(1, (12, 12))
    box = torch.tensor([20.0, 28.0, 60.0, 70.0]).view(4, 1, 1)
    distances = torch.cat([points - box[:2], box[2:] - points]).unsqueeze(0)
    refined = refine(distances, torch.zeros(1, 8, 12, 12), points, 8)
    inside = (distances > 0).all(1, keepdim=True).expand_as(distances)
    assert inside.any()
    torch.testing.assert_close(refined[inside], distances[inside], rtol=0, atol=1e-4)
    assert (refined >= 0).all()


def test_right_and_bottom_sides_read_beyond_the_map_collapse():
    """Samples outside are 0, the left and top border of the image: published models do this."""
    points = PointGenerator(strides=(8,))([(2, 2)], torch.device("cpu")).points.T.unflatten(1, (2, 2))
    refined = refine(torch.full((1, 4, 2, 2), 80.0), torch.zeros(1, 8, 2, 2), points, 8)
    assert not refined[:, 2:].any()
    torch.testing.assert_close(refined[0, :2], points)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predictor_with_refinement_gives_pixels_in_single_precision(dtype):
    torch.manual_seed(0)
    predictor = RefinedPredictor(
        in_channels=16,
        num_classes=3,
        priors=PointGenerator(),
        quality_on="box",
        refinement=BoundaryRefinement(in_channels=16),
        prior_prob=0.02,
        box_bias=4.0,
    )
    features = [torch.randn(2, 16, n, n + 1) for n in (16, 8, 4, 2, 1)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        predictions = predictor(features, features, [torch.ones(())] * 5)
    boxes = predictions.maps["boxes"]
    assert all(x.dtype == torch.float32 and (x >= 0).all() for x in boxes)
    # Coarse sides start 4 strides away, where the coarse boxes in turn have their sides 4 strides further.
    assert boxes[0][:, :, 6:10, 6:10].mean().item() == pytest.approx(64, rel=0.1)
    torch.testing.assert_close(predictor.logits.bias.sigmoid(), torch.full((3,), 0.02))
    sum(x.sum() for x in boxes).backward()
    for name in ("boxes.weight", "refinement.offset.weight", "refinement.offset.bias"):
        assert predictor.get_parameter(name).grad.any()
