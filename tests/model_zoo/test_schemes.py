"""The records of the schemes: what they name exists."""

from pathlib import Path

import pytest
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.conversion.repositories import REPOSITORIES
from la_det.matchers import matcher_at
from la_det.model_zoo import schemes
from la_det.model_zoo.schemes import get_schemes, load, references
from la_det.modeling.criteria import BySoftTargets
from la_det.references.image import PROGRESS

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("scheme", get_schemes().values(), ids=lambda scheme: scheme.name)
def test_everything_is_where_the_record_says(scheme):
    model = model_zoo.get_config(scheme.config).model
    criteria = list(instantiate(model.criteria))
    assert load(scheme.matcher) in [type(matcher_at(criterion.matcher, PROGRESS)) for criterion in criteria]
    terms = [term for criterion in criteria for term in criterion.losses.values()]
    terms += [part for term in terms if isinstance(term, BySoftTargets) for part in (term.without, term.given)]
    assert set(map(type, terms)) == {load(f"la_det.modeling.criteria.{loss}") for loss in scheme.losses}
    assert callable(load(scheme.reference))
    assert any((DATA / scheme.golden).iterdir())
    assert scheme.repository in [None, *(repository.name for repository in REPOSITORIES)]
    if scheme.head:
        head = load(scheme.head)
        assert head in map(type, instantiate(model.head).modules()) or scheme.name == "dw"  # measured without it


def test_every_matcher_of_a_scheme_has_a_dense_form():
    for scheme in get_schemes().values():
        for criterion in instantiate(model_zoo.get_config(scheme.config).model.criteria):
            assert type(matcher_at(criterion.matcher, PROGRESS)) in references()


def test_a_bad_record_is_named(monkeypatch, tmp_path):
    (tmp_path / "Mine").mkdir()
    (tmp_path / "Mine" / "schemes.yaml").write_text("order: 1\nschemes:\n  mine:\n    losses: []\n    titel: Mine\n")
    monkeypatch.setattr(schemes, "project_folders", lambda: (tmp_path / "Mine",))
    with pytest.raises(ValueError, match="Mine/schemes.yaml: mine: .*titel"):
        schemes.get_schemes.__wrapped__()
