import pytest

from la_det.comparison.schemes import ENDINGS, SCHEMES, config_name, rank, scheme_and_data
from la_det.errors import UserError


@pytest.mark.parametrize("data", ENDINGS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_has_a_config_on_every_data_set(scheme, data):
    assert scheme_and_data(config_name(scheme, data)) == (scheme, data)


def test_a_name_is_not_taken_for_one_that_ends_like_it():
    assert config_name("atss", "shapes_tiny") == "ATSS/atss_r18_fpn_shapes_tiny"


def test_unknown_names():
    with pytest.raises(UserError, match="faster: there is no config faster_r18_fpn_shapes_tiny; choose from fcos poto"):
        config_name("faster", "shapes_tiny")
    with pytest.raises(UserError, match="poto_r50_fpn_3x_ms_coco: not a config on shapes_tiny"):
        scheme_and_data("POTO/poto_r50_fpn_3x_ms_coco")


def test_others_are_sorted_behind():
    assert sorted(["zoo", "lla", "aaa", "fcos"], key=rank) == ["fcos", "lla", "aaa", "zoo"]
