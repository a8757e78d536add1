"""Names and shapes of all manifests: which config they are of, and that every key finds its place."""

import random

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.checkpoint.recipe import apply_overrides
from la_det.conversion.convert import Fit, _overrides, find_fit
from la_det.conversion.repositories import REPOSITORIES
from la_det.errors import UserError
from la_det.modeling.candidate_rules import TopPairs
from la_det.testing.seeded_weights import seeded_state_dict, zoo_config
from tests.conversion.official_state import MANIFESTS, official_state

# One of each kind of head and framework; the others take longer.
QUICK = ("poto_3dmf_crowdhuman", "lla_fcos_crowdhuman", "atss_dcnv2_R_50_FPN_1x", "date_f_3dmf_r50", "dw_r50_dcnv2")
SLOW = [name for name in MANIFESTS if name not in QUICK]
POTO_LIKE = {
    "FCOS/fcos_wo_ctrness_r50_fpn_3x_ms_coco",
    "POTO/center_r50_fpn_3x_ms_coco",
    "POTO/loss_r50_fpn_3x_ms_coco",
    "POTO/poto_argmax_r50_fpn_3x_ms_coco",
    "POTO/poto_r50_fpn_3x_ms_coco",
    "POTO/poto_r50_fpn_6x_ms_coco",
    "POTO/poto_r50_fpn_9x_ms_coco",
}
CROWDHUMAN = {
    "ATSS/atss_r50_fpn_30k_crowdhuman",
    "FCOS/fcos_r50_fpn_30k_crowdhuman",
    "LLA/lla_atss_r50_fpn_30k_crowdhuman",
    "LLA/lla_fcos_r50_fpn_30k_crowdhuman",
}
MMDETECTION_ATSS_LIKE = {"ATSS/atss_mmdet_r50_fpn_1x_coco", "PAA/paa_mmdet_r50_fpn_1x_coco"}


def fit_of(name: str, state: dict[str, torch.Tensor] | None = None) -> Fit:
    manifest = MANIFESTS[name]
    return find_fit("file.pth", state or official_state(manifest), zoo_config(manifest))


def model_of(fit: Fit) -> torch.nn.Module:
    with torch.device("meta"):
        return instantiate(apply_overrides(model_zoo.get_config(fit.config), fit.overrides).model)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_key_has_one_place_and_every_parameter_one_key(name):
    state = official_state(MANIFESTS[name])
    fit = fit_of(name, state)
    assert len(set(fit.sources.values())) == len(fit.sources)
    assert set(fit.sources.values()) | set(fit.dropped) == set(state)
    assert all("num_batches_tracked" in key or key in MANIFESTS[name]["computed"] for key in fit.dropped)
    weights = fit.weights(state)
    model_of(fit).load_state_dict(weights, strict=True, assign=True)
    for parameter, key in fit.sources.items():  # back again, by the value that says which key it came from
        vector, _, index = parameter.removesuffix("]").partition("[")
        value = weights[vector][int(index)] if index else weights[parameter]
        assert value.unique().round().tolist() == state[key].unique().tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, manifest in MANIFESTS.items() if "golden" not in manifest])
def test_seeded_weights_of_models_without_golden_file_fit_strictly(name):
    state = seeded_state_dict(MANIFESTS[name])
    fit = fit_of(name, state)
    model_of(fit).load_state_dict(fit.weights(state), strict=True, assign=True)


@pytest.mark.parametrize(
    ("name", "configs"),
    [
        ("poto_coco", POTO_LIKE),
        ("defcn_fcos_noctr_coco", POTO_LIKE),
        ("poto_3dmf_coco", {f"POTO/poto_3dmf{aux}_r50_fpn_3x_ms_coco" for aux in ("", "_aux")}),
        ("defcn_atss_crowdhuman", CROWDHUMAN),
        ("lla_baselines_crowdhuman", CROWDHUMAN),
        ("paa_R_50_FPN_1x", {f"PAA/paa_r50_fpn_{schedule}_coco" for schedule in ("1x", "135k")}),
        ("mmdet_atss_r50", MMDETECTION_ATSS_LIKE),
        ("mmdet_paa_r50", MMDETECTION_ATSS_LIKE),
    ],
)
def test_files_of_several_models_are_listed(name, configs):
    with pytest.raises(UserError, match=f"^file.pth: {len(configs)} configs .*--config") as error:
        find_fit("file.pth", official_state(MANIFESTS[name]))
    assert set(str(error.value).rpartition(": ")[2].split(", ")) == configs


@pytest.mark.slow
def test_atss_and_dynamic_atss_are_listed():
    with pytest.raises(UserError, match="ATSS/atss_r50_fpn_1x_coco, DynamicATSS/dynamic_atss_r50_fpn_1x_coco$"):
        find_fit("file.pth", official_state(MANIFESTS["dynamic_atss_R_50_FPN_1x"]))


@pytest.mark.slow
def test_schedules_of_ota_are_listed():
    with pytest.raises(UserError, match="OTA/ota_r50_fpn_1x_coco, OTA/ota_r50_fpn_2x_ms_coco$"):
        find_fit("file.pth", official_state(MANIFESTS["ota_r50_c5"]))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fcos", "retinanet"])
@pytest.mark.parametrize("data", ["", "_crowdhuman"])
def test_models_of_onenet_are_told_from_each_other(head, data):
    state = official_state(MANIFESTS[f"onenet_{head}_r50{data}"])
    ending = "47k_crowdhuman" if data else "270k_ms_coco"
    assert find_fit("file.pth", state).config == f"OneNet/onenet_{head}_r50_fpn_{ending}"


def test_onenets_anchors_are_checked():
    state = official_state(MANIFESTS["onenet_retinanet_r50"])
    state["head.anchor_generator.cell_anchors.2"] = state["head.anchor_generator.cell_anchors.1"]
    with pytest.raises(UserError, match="1 wrong .head.anchor_generator.cell_anchors.2 is not"):
        fit_of("onenet_retinanet_r50", state)


@pytest.mark.parametrize("name", ["poto_crowdhuman", "lla_fcos_crowdhuman"])
def test_files_of_one_model_need_no_name(name):
    state = official_state(MANIFESTS[name])
    assert find_fit("file.pth", state) == fit_of(name, state)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mmdet_fcos_r50_caffe", "FCOS/fcos_mmdet_r50_fpn_1x_coco"),
        ("mmdet_fcos_r50_caffe_center_normbbox", "FCOS/fcos_mmdet_center_normbbox_r50_fpn_1x_coco"),
        ("mmdet_autoassign_r50_caffe", "AutoAssign/autoassign_mmdet_r50_fpn_1x_coco"),
        ("autoassign_r50", "AutoAssign/autoassign_r50_fpn_1x_coco"),
        ("dw_r50", "DW/dw_worefine_r50_fpn_1x_coco"),
    ],
)
def test_mmdetections_models_and_autoassigns_are_told_from_each_other_and_from_dw(name, config):
    assert find_fit("file.pth", official_state(MANIFESTS[name])).config == config


def test_toods_two_repositories_are_told_by_their_names():
    """MMDetection's files bring what its inference needs."""
    name = "TOOD/tood_r50_fpn_1x_coco"
    fits = {of: fit_of(of) for of in ("tood_r50", "mmdet_tood_r50")}
    assert {of: (fit.repository.name, fit.config) for of, fit in fits.items()} == {
        "tood_r50": ("fcjian/TOOD", name),
        "mmdet_tood_r50": ("open-mmlab/mmdetection", name),
    }
    assert fits["tood_r50"].sources.keys() == fits["mmdet_tood_r50"].sources.keys()
    assert not fits["tood_r50"].overrides
    model = model_of(fits["mmdet_tood_r50"])
    assert model.head.predictors["main"].repair and not model.inference.clip
    assert isinstance(model.inference.candidate_rule, TopPairs) and not model.inference.candidate_rule.cap


def test_anchors_and_schedules_of_tood_are_listed():
    with pytest.raises(UserError, match="^file.pth: 3 configs .*--config") as error:
        find_fit("file.pth", official_state(MANIFESTS["tood_r50"]))
    found = set(str(error.value).rpartition(": ")[2].split(", "))
    assert found == {f"TOOD/tood_{x}_coco" for x in ("r50_fpn_1x", "anchor_r50_fpn_1x", "r50_fpn_2x_ms")}


def test_early_names_of_mmdetections_fcos():
    state = official_state(MANIFESTS["mmdet_fcos_r50_caffe"])
    old = {key.replace("bbox_head.conv_", "bbox_head.fcos_"): value for key, value in state.items()}
    assert old.keys() != state.keys()
    assert fit_of("mmdet_fcos_r50_caffe", old).sources.keys() == fit_of("mmdet_fcos_r50_caffe").sources.keys()


def test_p6_from_c5_is_told_from_the_shape():
    assert fit_of("lla_fcos_crowdhuman").recipe()["network"]["backbone.top_block.in_feature"] == "p5"
    recipe = fit_of("lla_fcos_crowdhuman_c5").recipe()
    assert recipe["network"]["backbone.top_block.in_feature"] == "res5"
    assert recipe["overrides"]["model.backbone.top_block.in_channels"] == 2048


def test_weights_without_two_dimensions_are_no_convolution_of_p6():
    shapes = {f"backbone.{name}.weight": torch.Size([4]) for name in ("top_block.p6", "fpn_lateral5")}
    assert not any("top_block" in key for key in _overrides(REPOSITORIES[0], shapes))


BOX_OFFSET = "head.predictors.main.priors.box_offset"


def test_pixel_inclusive_boxes_are_told_from_the_repository():
    assert fit_of("atss_dcnv2_R_50_FPN_1x").recipe()["network"][BOX_OFFSET] == 1
    assert fit_of("poto_crowdhuman").recipe()["network"][BOX_OFFSET] == 0


def test_constants_are_checked():
    state = official_state(MANIFESTS["dw_r50_dcnv2"])
    state["bbox_head.center_prior.sigma"] = torch.full((80, 2), 1.2)
    with pytest.raises(UserError, match="1 wrong .bbox_head.center_prior.sigma is not 1.11"):
        fit_of("dw_r50_dcnv2", state)


def test_old_spelling_of_deformable_layers():
    state = official_state(MANIFESTS["dw_r50_dcnv2"])
    old = {key.replace(".conv_offset.", "_offset."): value for key, value in state.items()}
    assert old.keys() != state.keys()
    expected = fit_of("dw_r50_dcnv2", state)
    assert fit_of("dw_r50_dcnv2", old).sources.keys() == expected.sources.keys()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 327))
def test_any_order_is_fine_and_any_change_is_named(seed, index):
    name = "poto_3dmf_crowdhuman"
    items = list(official_state(MANIFESTS[name]).items())
    random.Random(seed).shuffle(items)
    key, value = items[index]
    state = dict(items)
    expected = fit_of(name)
    parameter = next(parameter for parameter, source in expected.sources.items() if source == key)
    assert fit_of(name, state).sources == expected.sources

    with pytest.raises(UserError, match="1 missing") as error:
        fit_of(name, {k: v for k, v in state.items() if k != key})
    assert f"({parameter})" in str(error.value)
    with pytest.raises(UserError, match="1 unused") as error:
        fit_of(name, state | {f"{key}.more": value})
    assert f"({key}.more)" in str(error.value)
    with pytest.raises(UserError, match=r"1 wrong .*\[7, 1, 7\] instead of") as error:
        fit_of(name, state | {key: torch.zeros(7, 1, 7)})
    assert f"({key} " in str(error.value)
