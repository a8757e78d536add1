import numpy as np
import pytest
from detectron2.data import transforms as T

from la_det.data.transforms import ResizeShortestEdge


@pytest.mark.parametrize("shape", [(1, 6000, 3), (6000, 1, 3), (2, 9000, 1)])
def test_very_long_images_keep_a_pixel(shape):
    augmented = T.AugInput(np.full(shape, 7, np.uint8))
    ResizeShortestEdge(800, 1333)(augmented)
    assert min(augmented.image.shape[:2]) == 1 and max(augmented.image.shape) == 1333
    assert augmented.image.shape[2] == shape[2] and (augmented.image == 7).all()


def test_other_images_are_resized_as_by_detectron2():
    image = np.random.default_rng(0).integers(0, 256, (48, 100, 3), dtype=np.uint8)
    mine, theirs = T.AugInput(image), T.AugInput(image)
    ResizeShortestEdge(80, 133)(mine)
    T.ResizeShortestEdge(80, 133)(theirs)
    assert np.array_equal(mine.image, theirs.image)
