from dataclasses import replace

import numpy as np
from matplotlib.collections import PathCollection
from PIL import Image

from la_det.visualization.figure import draw
from la_det.visualization.locations import Kind


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.has_data()]


def saved(figure, path) -> np.ndarray:
    figure.savefig(path, dpi=60)
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_panel_for_each_scheme_and_moment(pictures, rows, tmp_path):
    figure = draw(pictures[0], 0, rows)
    assert [title.splitlines()[:2] for title in titles(figure)] == [
        [f"{scheme}: POTO", moment] for moment in ("early", "late") for scheme in ("a", "b")
    ]
    assert titles(figure)[1].splitlines()[2] == "2 positive, 1 soft, 1 with another background weight, 2 dropped"
    assert titles(figure)[0].endswith("1 positive; none for 1")  # 2 is ignored
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {"P3", "P4", "positive"}
    assert saved(figure, tmp_path / "figure.png").std() > 0


def test_moments_of_one_criterion_lie_side_by_side(pictures, make_panel):
    moments = [[make_panel("a", str(i), [], [])] for i in range(5)]
    figure = draw(pictures[0], 0, moments)
    assert len(titles(figure)) == 5
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 4)


def test_an_image_without_ground_truths(pictures, rows, tmp_path):
    figure = draw(pictures[1], 1, rows)
    assert [title.splitlines()[2] for title in titles(figure)] == ["all background", "1 dropped"] + [
        "all background"
    ] * 2
    saved(figure, tmp_path / "figure.png")


def test_markers_lie_on_their_points_in_their_level_s_colour(pictures, make_panel, tmp_path):
    entry = (Kind.POSITIVE, 0, 0, (20, 28), 1, 1, 1)
    (axes,) = draw(pictures[0], 0, [[make_panel("a", "now", [entry], [])]]).axes
    outline, fill = (c for c in axes.collections if isinstance(c, PathCollection) and len(c.get_offsets()))
    assert outline.get_offsets().tolist() == fill.get_offsets().tolist() == [[20, 28]]
    assert outline.get_sizes() == fill.get_sizes()
    np.testing.assert_allclose(fill.get_facecolor()[0], [0, 0x72 / 255, 0xB2 / 255, 1])


def test_many_ground_truths_without_positive_are_counted(pictures, make_panel):
    crowd = replace(pictures[0], boxes=np.tile(pictures[0].boxes, (4, 1)), ignored=np.tile(pictures[0].ignored, 4))
    figure = draw(crowd, 0, [[make_panel("a", "now", [], [])]])
    assert titles(figure)[0].endswith("all background; none for 8 ground truths")
