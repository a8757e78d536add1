import pytest
import torch

from la_det.references.scene import make_targets
from la_det.steps.select import SIZE_RANGES, possible_levels


@pytest.mark.parametrize("longest", [1, 63, 64.5, 65, 70, 127, 130, 250, 258, 300, 511, 516, 1023, 1032, 4000])
def test_possible_levels_are_those_that_some_point_inside_can_have(longest):
    """A point's largest distance to the sides goes from half the longer side, at the middle, to nearly all of it."""
    possible = possible_levels(make_targets([[[0.0, 0.0, longest, 0.5]], []]), SIZE_RANGES)
    reach = torch.linspace(longest / 2, longest * 0.9999, 10_000)
    assert possible.tolist() == [[bool(((low <= reach) & (reach <= high)).any()) for low, high in SIZE_RANGES]]
