import numpy as np
import pytest
from detectron2.data import transforms as T

from la_det.data.transforms import ResizeShortestEdge
from la_det.deploy.images import of_one_size, padded_size, resized, resized_size

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_resizes_as_training_and_evaluation(channels):
    for _ in range(50):
        size = tuple(map(int, RNG.integers(1, 120, 2)))
        short_edge, max_size = map(int, RNG.integers(1, 90, 2))
        image = RNG.integers(0, 256, (*size, channels), dtype=np.uint8)
        given = T.AugInput(image)
        T.AugmentationList([ResizeShortestEdge(short_edge, max_size)])(given)
        new = resized_size(size, short_edge, max_size, None)
        assert new == given.image.shape[:2]
        assert np.array_equal(resized(image, new), given.image)


def test_sizes_of_recipes():
    """All sizes of a side whose rounding may differ."""
    for side in range(1, 2000, 7):
        transform = ResizeShortestEdge(800, 1333).get_transform(np.empty((side, 640), np.uint8))
        assert resized_size((side, 640), 800, 1333, None) == (transform.new_h, transform.new_w)


def test_fixed_sizes_shrink_but_never_enlarge():
    assert resized_size((40, 60), None, None, (64, 64)) == (40, 60)
    assert resized_size((128, 60), None, None, (64, 64)) == (64, 30)
    assert resized_size((40, 60), 80, 100, (64, 64)) == (43, 64)
    assert resized_size((1, 4000), None, None, (64, 64)) == (1, 64)


def test_every_image_in_one_group_of_its_padded_size():
    sizes = [(20, 40), (64, 64), (32, 33), (1, 64)]
    assert list(of_one_size(sizes, 32)) == [[0, 2, 3], [1]]
    assert padded_size(sizes, 32) == (64, 64) and list(of_one_size([], 32)) == []
