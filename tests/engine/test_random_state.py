import random

import numpy as np
import torch

from la_det.engine.random_state import get_random_state, set_random_state


def draw():
    return random.random(), random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist()  # noqa: NPY002


def test_survives_a_checkpoint_without_pickle(tmp_path):
    draw()  # leaves a second normal deviate in each generator
    torch.save(get_random_state(), tmp_path / "state.pth")
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert draw() == expected
