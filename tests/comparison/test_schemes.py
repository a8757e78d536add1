import pytest

from la_det.comparison.schemes import ENDINGS, SCHEMES, config_name, scheme_and_data, table_order
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


def test_order_is_by_project_and_others_are_behind():
    schemes = ("lla", "date_dw", "date_atss", "date_f", "poto", "fcos_wo_ctrness", "fcos")
    configs = sorted((config_name(scheme, "shapes_tiny") for scheme in schemes), key=table_order)
    found = [scheme_and_data(config)[0] for config in configs]
    assert found == ["fcos", "fcos_wo_ctrness", "poto", "date_f", "date_atss", "date_dw", "lla"]
