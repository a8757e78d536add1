"""Published figures that docs/which_scheme.md repeats."""

import re

from la_det import model_zoo
from tests.docs.blocks import ROOT

ROW = re.compile(r"^\| \[[^|]+ \| `(?P<config>[^`]+)` \|(?P<cells>.*)\|$", re.MULTILINE)
NUMBER = re.compile(r" (\d+\.\d) ")


def test_figures_are_those_of_the_records():
    records = model_zoo.get_records()
    rows = list(ROW.finditer((ROOT / "docs/which_scheme.md").read_text()))
    assert len(rows) == 20
    for row in rows:
        published = records[row["config"]].published
        figures = [float(number) for number in NUMBER.findall(row["cells"])]
        expected = [published[metric] for metric in ("AP", "mMR")[: len(figures)]]
        assert (row["config"], figures) == (row["config"], expected)
