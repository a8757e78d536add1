import pytest

from la_det import model_zoo
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.model_zoo.names import TWINS
from la_det.model_zoo.schemes import get_schemes

COMPARED = [scheme for scheme in get_schemes().values() if scheme.compared]


@pytest.mark.parametrize("scheme", COMPARED, ids=lambda scheme: scheme.name)
def test_every_compared_scheme_has_its_twins(scheme):
    names = {f"{scheme.project}/{scheme.name}{ending}" for ending in TWINS}
    assert names <= set(model_zoo.list())


def test_a_twin_is_its_recipe_in_the_setting():
    cfg = model_zoo.get_config("DATE/date_f_r18_fpn_shapes_crowd")
    recipe = model_zoo.get_config("DATE/date_f_r50_fpn_30k_crowdhuman")
    assert cfg.model.criteria[0] == recipe.model.criteria[0]
    assert (cfg.model.num_classes, cfg.model.inference.max_detections) == (1, 500)
    assert (cfg.train.max_iter, cfg.dataloader.test.dataset.names) == (1500, "shapes_crowd_odgt_val")


def test_each_call_gives_a_twin_of_its_own():
    first = model_zoo.get_config("POTO/poto_r50_fpn_shapes")
    first.model.num_classes = 3
    assert model_zoo.get_config("POTO/poto_r50_fpn_shapes").model.num_classes == 10


def test_a_twin_by_the_path_that_its_file_would_have():
    cfg = load_config("projects/POTO/configs/poto_r18_fpn_shapes_tiny.py")
    assert cfg == load_config("POTO/poto_r18_fpn_shapes_tiny")
    with pytest.raises(UserError, match="no such config file"):
        load_config("elsewhere/POTO/poto_r18_fpn_shapes_tiny.py")


def test_only_what_has_a_file_has_a_path():
    assert model_zoo.get_config_file("POTO/poto_r50_fpn_3x_ms_coco").is_file()
    with pytest.raises(KeyError, match="twin without a file"):
        model_zoo.get_config_file("POTO/poto_r18_fpn_shapes_tiny")
    with pytest.raises(KeyError, match="no config 'POTO/other_r18_fpn_shapes_tiny'"):
        model_zoo.get_config_file("POTO/other_r18_fpn_shapes_tiny")
