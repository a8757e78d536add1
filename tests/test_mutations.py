"""The table of changes fits the code; that the tests notice them is what mutate.py is for."""

import ast
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.old}")
def test_applies_once(mutation):
    ast.parse(mutation.apply((ROOT / mutation.file).read_text()))
    assert all((ROOT / test.split()[0]).exists() for test in mutation.tests)
