"""Which config a file belongs to."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from la_det import model_zoo
from la_det.errors import UserError
from la_det.reproduction.recognise import official_files, recognise
from la_det.testing.seeded_weights import zoo_config
from tests.conversion.official_state import MANIFESTS, official_state

RECORDS = model_zoo.get_records()
# The configs of one-to-one rules have the same parameters; so have those of these two repositories on CrowdHuman.
ONE_TO_ONE = {
    name: RECORDS[name]
    for name in (
        "FCOS/fcos_wo_ctrness_r50_fpn_3x_ms_coco",
        "POTO/center_r50_fpn_3x_ms_coco",
        "POTO/poto_r50_fpn_3x_ms_coco",
        "POTO/poto_r50_fpn_6x_ms_coco",
        "POTO/poto_argmax_r50_fpn_3x_ms_coco",
    )
}
CROWDHUMAN = {
    name: RECORDS[name]
    for name in (
        "ATSS/atss_r50_fpn_30k_crowdhuman",
        "FCOS/fcos_r50_fpn_30k_crowdhuman",
        "LLA/lla_fcos_r50_fpn_30k_crowdhuman",
    )
}


def official(name: str) -> dict[str, torch.Tensor]:
    return official_state(MANIFESTS[name])


def test_by_the_parameters_alone():
    found = recognise("x.pth", official("poto_crowdhuman"), {k: v for k, v in RECORDS.items() if "/poto_" in k})
    assert (found.fit.config, found.by) == ("POTO/poto_r50_fpn_30k_crowdhuman", "its parameters")


@pytest.mark.parametrize(
    ("name", "config", "by"),
    [
        ("poto.res50.fpn.coco.800size.3x_ms.pth", "POTO/poto_r50_fpn_3x_ms_coco", "its name"),
        ("poto.res50.fpn.coco.800size.3x_ms.argmax/model_final.pth", "POTO/poto_argmax_r50_fpn_3x_ms_coco", "its name"),
        ("POTO_R50_FPN_6x_ms_COCO-1a2b.pkl", "POTO/poto_r50_fpn_6x_ms_coco", "its name"),
        ("center.pth", "POTO/center_r50_fpn_3x_ms_coco", "words of its name"),
        ("defcn/poto-6x.pth", "POTO/poto_r50_fpn_6x_ms_coco", "words of its name"),
        ("fcos.res50.fpn.coco.800size.3x_ms.wo_ctrness.pth", "FCOS/fcos_wo_ctrness_r50_fpn_3x_ms_coco", "its name"),
    ],
)
def test_by_the_name(name, config, by):
    found = recognise(name, official("poto_coco"), ONE_TO_ONE)
    assert (found.fit.config, found.by) == (config, by)


@pytest.mark.parametrize(
    ("name", "configs"),
    [
        ("model_final.pth", list(ONE_TO_ONE)),
        ("poto.pth", [name for name in ONE_TO_ONE if name.startswith("POTO/poto")]),
        ("center-poto.pth", list(ONE_TO_ONE)),  # which contradicts itself
    ],
)
def test_a_name_that_does_not_decide(name, configs):
    with pytest.raises(UserError, match=f"{name}: these configs have its parameters; say which with --config") as error:
        recognise(name, official("poto_coco"), ONE_TO_ONE)
    assert set(str(error.value).rpartition(": ")[2].split(", ")) == set(configs)


def test_the_user_decides():
    found = recognise("model_final.pth", official("poto_coco"), ONE_TO_ONE, "POTO/poto_r50_fpn_6x_ms_coco")
    assert (found.fit.config, found.by) == ("POTO/poto_r50_fpn_6x_ms_coco", "--config")
    with pytest.raises(UserError, match="--config POTO/potto: no config of an official model; did you mean POTO/"):
        recognise("model_final.pth", official("poto_coco"), ONE_TO_ONE, "POTO/potto")


def test_a_folder_tells_the_repository():
    """Both repositories have a config of this name."""
    name = "fcos.res50.fpn.crowdhuman.800size.30k.pth"
    state = official("lla_baselines_crowdhuman")
    with pytest.raises(UserError, match=": FCOS/fcos_r50_fpn_30k_crowdhuman, LLA/lla_fcos_r50_fpn_30k_crowdhuman$"):
        recognise(name, state, CROWDHUMAN)
    for folder, config in (("DeFCN", "FCOS/fcos_r50"), ("LLA", "LLA/lla_fcos_r50")):
        assert recognise(f"{folder}/{name}", state, CROWDHUMAN).fit.config == f"{config}_fpn_30k_crowdhuman"


def test_what_was_published_decides_at_last():
    one, other = "POTO/poto_r50_fpn_3x_ms_coco", "POTO/poto_r50_fpn_6x_ms_coco"
    records = {one: RECORDS[one], other: replace(RECORDS[other], published={})}
    found = recognise("model_final.pth", official("poto_coco"), records)
    assert (found.fit.config, found.by) == (one, "what was published")
    assert recognise("poto_6x.pth", official("poto_coco"), records).fit.config == other


@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFESTS)
def test_official_names_of_all_manifests(name):
    manifest = MANIFESTS[name]
    file = Path(manifest["source"]["config"])
    called = file.parent.name if file.name == "config.py" else file.stem
    folder = manifest["source"]["repository"].split("/")[1]
    found = recognise(f"{folder}/{called}/model_final.pth", official_state(manifest), RECORDS)
    assert found.fit.config == zoo_config(manifest)


class TestFiles:
    def test_are_found_in_folders(self, tmp_path):
        place = tmp_path / "downloads"
        names = ("a.pth", "more/b.pkl", "more/c.safetensors", "README.md", "out/weights/d.safetensors")
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).touch()
        found = official_files([place], place / "out")
        assert found == {f"downloads/{name}": place / name for name in names[:3]}
        assert official_files([place / "a.pth"], place / "out") == {"downloads/a.pth": place / "a.pth"}

    def test_of_the_same_name(self, tmp_path):
        places = [tmp_path / part / "downloads" for part in ("one", "two")]
        for place in places:
            place.mkdir(parents=True)
            (place / "a.pth").touch()
        first, second = (place / "a.pth" for place in places)
        assert official_files([*places, first], tmp_path / "out") == {"downloads/a.pth": first, str(second): second}

    def test_that_are_links_keep_their_names(self, tmp_path):
        """A download cache keeps contents under their hashes, without suffix."""
        for folder in ("blobs", "DeFCN"):
            (tmp_path / folder).mkdir()
        blob, link = tmp_path / "blobs" / "3fa9", tmp_path / "DeFCN" / "poto.safetensors"
        blob.touch()
        link.symlink_to("../blobs/3fa9")
        assert official_files([link.parent], tmp_path / "out") == {"DeFCN/poto.safetensors": link}
        assert official_files([link], tmp_path / "out") == {"DeFCN/poto.safetensors": link}

    def test_are_listed_once(self, tmp_path, monkeypatch):
        place = tmp_path / "downloads"
        file = place / "sub" / "a.pth"
        file.parent.mkdir(parents=True)
        file.touch()
        for link in (place / "sub" / "b.pth", tmp_path / "c.pth"):
            link.symlink_to(file)
        monkeypatch.chdir(tmp_path)
        for places in ([place, place / "sub"], [place, file], [place, Path("downloads")], [place, tmp_path / "c.pth"]):
            assert official_files(places, tmp_path / "out") == {"downloads/sub/a.pth": file}
        assert official_files([Path("downloads/sub"), place], tmp_path / "out") == {"sub/a.pth": file}

    def test_in_the_output_are_left_out_whatever_its_path(self, tmp_path):
        (tmp_path / "out").mkdir()
        for name in ("a.pth", "out/b.pth"):
            (tmp_path / name).touch()
        (tmp_path / "link").symlink_to("out")
        assert list(official_files([tmp_path], tmp_path / "link")) == [f"{tmp_path.name}/a.pth"]

    def test_are_no_folders(self, tmp_path):
        (tmp_path / "folder.pth").mkdir()
        (tmp_path / "folder.pth" / "a.pth").touch()
        assert list(official_files([tmp_path], tmp_path / "out")) == [f"{tmp_path.name}/folder.pth/a.pth"]

    def test_that_are_broken_links_get_a_row(self, tmp_path):
        gone, loop = tmp_path / "gone.pth", tmp_path / "loop.pth"
        gone.symlink_to("nowhere")
        loop.symlink_to(loop)
        assert list(official_files([tmp_path], tmp_path / "out").values()) == [gone, loop]

    @pytest.mark.parametrize(
        ("name", "shown"),
        [("目" * 80, "目" * 80), ("a b", "a b"), ("a\nb", r"a\nb"), (os.fsdecode(b"a\xff"), r"a\udcff")],
    )
    def test_of_odd_names(self, tmp_path, name, shown):
        (tmp_path / f"{name}.pth").touch()
        assert list(official_files([tmp_path], tmp_path / "out")) == [f"{tmp_path.name}/{shown}.pth"]

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match="nowhere: no such file or folder"):
            official_files([tmp_path / "nowhere"], tmp_path)
        listed = "la-det reproduce --list says where files are from"
        with pytest.raises(UserError, match=rf"no file named \*.pkl, \*.pth, \*.safetensors in it; {listed}$"):
            official_files([tmp_path], tmp_path / "out")
