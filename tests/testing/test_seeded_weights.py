import pytest
import torch

from la_det.testing.golden import NotBuilt
from la_det.testing.seeded_weights import find_manifest, seeded_state_dict, zoo_config
from tests.conversion.official_state import MANIFESTS

SMALL = {
    "keys": {
        "a.num_batches_tracked": [],
        "a.running_var": [4],
        "a.running_mean": [4],
        "a.weight": [2, 3, 3, 3],
        "b.weight": [4],
        "b.scale": [1],
        "b.bias": [4],
        "b.level": [],
        "anchor": [1, 2],
        "sigma": [2, 2],
    },
    "computed": {"anchor": [[1, 2]], "sigma": {"fill": 1.5}, "b.level": 1.0},
    "weight_mul": {"a.weight": 2.0},
    "logit_bias": {"b.bias": -2.0},
    "bias_add": {"b.bias": 1.0},
    "overrides": {"b.level": 0.8},
}


def test_every_line_of_the_rule():
    state = seeded_state_dict(SMALL)
    plain = seeded_state_dict({"keys": SMALL["keys"], "computed": SMALL["computed"]})
    assert {key: list(value.shape) for key, value in state.items()} == SMALL["keys"]
    assert state["a.num_batches_tracked"].dtype == torch.int64
    assert state["a.running_var"].min() > 1
    assert state["a.running_mean"].abs().max() < 0.5
    assert 0 < (state["b.weight"] - 1).abs().max() < 0.5
    assert torch.equal(state["a.weight"], 2 * plain["a.weight"])
    torch.testing.assert_close(state["b.bias"], plain["b.bias"] - 1)
    assert state["b.level"] == torch.tensor(0.8) and plain["b.level"] == 1
    assert state["anchor"].tolist() == [[1, 2]]
    assert state["sigma"].tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_values_that_the_manifests_state():
    names = [name for name, manifest in MANIFESTS.items() if "probe" in manifest]
    assert names
    for name in names:
        probe = {key: value for key, value in MANIFESTS[name]["probe"].items() if key != "note"}
        keys = {key: MANIFESTS[name]["keys"][key] for key in probe}
        state = seeded_state_dict(MANIFESTS[name] | {"keys": keys})
        for key, values in probe.items():
            assert state[key].flatten()[: len(values)].tolist() == values


@pytest.mark.parametrize("name", MANIFESTS)
def test_all_published_models_are_in_the_zoo(name):
    source = MANIFESTS[name]["source"]
    others = [x for x in MANIFESTS[name].get("also", []) + MANIFESTS[name].get("variants", []) if "config" in x]
    configs = [source["config"], *(x["config"] for x in others if isinstance(x, dict))]
    for config in configs:
        assert zoo_config({"source": source | {"config": config}})


def test_unknown_official_config():
    with pytest.raises(NotBuilt, match="no config for someone/DW's configs/dw_r18.py"):
        zoo_config({"source": {"repository": "someone/DW", "config": "configs/dw_r18.py"}})


def test_manifests_are_found_beside_the_file_and_in_the_sibling_folder(tmp_path):
    golden = tmp_path / "golden" / "checkpoints" / "lla_fcos_crowdhuman_c5.npz"
    golden.parent.mkdir(parents=True)
    assert find_manifest(golden) == MANIFESTS["lla_fcos_crowdhuman_c5"]  # this checkout's
    sibling = tmp_path / "checkpoints"
    sibling.mkdir()
    (sibling / "lla_fcos_crowdhuman_c5.json").write_text('{"here": 1}')
    assert find_manifest(golden) == {"here": 1}
    (golden.parent / "lla_fcos.json").write_text('{"here": 2}')
    (golden.parent / "lla.json").write_text('{"here": 3}')
    assert find_manifest(golden) == {"here": 2}
    with pytest.raises(FileNotFoundError, match="no manifest other.json"):
        find_manifest(golden.with_name("other.npz"))
