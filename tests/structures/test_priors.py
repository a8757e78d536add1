import pytest
import torch

from la_det.structures import AnchorGenerator, PointGenerator

GRID_SIZES = [(2, 3), (1, 2)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("offset", [0.5, 0.0])
def test_points(offset):
    priors = PointGenerator(strides=(8, 16), offset=offset)(GRID_SIZES, CPU)
    cells = [(j, i, s, level) for level, (s, (h, w)) in enumerate(zip((8, 16), GRID_SIZES, strict=True))
             for i in range(h) for j in range(w)]  # fmt: skip
    assert priors.points.tolist() == [[(j + offset) * s, (i + offset) * s] for j, i, s, _ in cells]
    assert priors.strides.tolist() == [s for _, _, s, _ in cells]
    assert priors.levels.tolist() == [level for _, _, _, level in cells]
    assert priors.level_starts == [0, 6, 8]
    assert len(priors) == 8


def test_one_square_anchor_per_cell():
    priors = AnchorGenerator(strides=(8, 16), sizes=(4.0,))(GRID_SIZES, CPU)
    points = PointGenerator(strides=(8, 16))(GRID_SIZES, CPU)
    assert torch.equal(priors.points, points.points)
    half = points.strides.unsqueeze(1) * 2
    assert torch.equal(priors.boxes, torch.cat([points.points - half, points.points + half], 1))


def test_nine_anchors_per_cell_ratio_by_ratio():
    """RetinaNet's: octaves 1, 2^(1/3), 2^(2/3) of 4 strides, heights over widths 0.5, 1, 2, around corners."""
    sizes, ratios = [4 * 2 ** (o / 3) for o in range(3)], (0.5, 1.0, 2.0)
    generator = AnchorGenerator(strides=(8, 16), sizes=sizes, ratios=ratios, offset=0.0)
    priors = generator(GRID_SIZES, CPU)
    assert generator.per_cell == priors.per_cell == 9
    assert len(priors) == 72
    assert priors.level_starts == [0, 54, 72]
    index = 0
    for s, (h, w) in zip((8, 16), GRID_SIZES, strict=True):
        for i in range(h):
            for j in range(w):
                for ratio in ratios:
                    for size in sizes:
                        width, height = s * size / ratio**0.5, s * size * ratio**0.5
                        box = [j * s - width / 2, i * s - height / 2, j * s + width / 2, i * s + height / 2]
                        assert priors.boxes[index].tolist() == pytest.approx(box, abs=1e-4)
                        assert priors.points[index].tolist() == [j * s, i * s]
                        assert priors.strides[index] == s
                        index += 1


def test_nine_anchors_per_cell_size_by_size():
    """Detectron2's order."""
    options = dict(strides=(8, 16), sizes=(4.0, 5.0, 6.0), ratios=(0.5, 1.0, 2.0))
    by_ratio = AnchorGenerator(**options)(GRID_SIZES, CPU).boxes.view(-1, 3, 3, 4)
    by_size = AnchorGenerator(**options, sizes_first=True)(GRID_SIZES, CPU).boxes.view(-1, 3, 3, 4)
    assert torch.equal(by_size, by_ratio.transpose(1, 2))


@pytest.mark.parametrize("generator", [PointGenerator(), AnchorGenerator()])
def test_wrong_number_of_levels(generator):
    with pytest.raises(ValueError):
        generator(GRID_SIZES, CPU)
