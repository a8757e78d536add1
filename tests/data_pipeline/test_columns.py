import pytest

from la_det.data.columns import Ids, Strings


@pytest.mark.parametrize("strings", [[], ["a"], ["", "größe", "c"]])
def test_strings_are_a_sequence(strings: list[str]) -> None:
    found = Strings(strings)
    assert list(found) == strings and list(reversed(found)) == strings[::-1]
    assert [found[i] for i in range(-len(strings), 0)] == strings and ("nowhere" in found) is False
    for index in (len(strings), -len(strings) - 1):
        with pytest.raises(IndexError):
            found[index]


@pytest.mark.parametrize("ids", [[], [3, -1], ["a", 2**70, 0.5]])
def test_ids_are_a_sequence(ids: list) -> None:
    assert list(Ids(ids)) == ids
