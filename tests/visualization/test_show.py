import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from la_det.cli import build_parser
from la_det.data.builtin import register_shapes
from la_det.data.shapes import SHAPES
from la_det.errors import UserError
from la_det.visualization.show import checkpoints_of, file_stems, main, moments_of, scheme_name, select_records
from la_det.visualization.snapshots import Moment

TINY = replace(SHAPES["shapes_tiny"], name="tiny_of_show_test", num_train=1, num_val=4, max_objects=1)
CROWD = replace(SHAPES["shapes_crowd"], name="crowd_of_show_test", num_train=1, num_val=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    register_shapes(TINY, root)
    register_shapes(CROWD, root)
    return root


def show(output: Path, names: str, config: str, *more: str) -> dict:
    """Runs the tool on a config of the zoo; the content of its page."""
    options = ["--output", str(output), "--opts", f"dataloader.test.dataset.names={names}", "train.device=cpu"]
    main(build_parser("show").parse([config, *options, *more]))
    return json.loads(re.search(r'id="data">(.*?)</script>', (output / "index.html").read_text(), re.DOTALL)[1])


def kinds(panel: dict) -> set[int]:
    return {kind for found in panel["found"] for kind in found["kind"]}


def test_two_schemes_at_two_moments(root, tmp_path, browser):
    versus = "DATE/date_dw_r18_fpn_shapes_tiny"
    names = f"{TINY.name}_val"
    moments, images = ("--progress", "0", "1"), ("--images", "4", "1")
    content = show(tmp_path, names, "O2F/o2f_r18_fpn_shapes_tiny", "--versus", versus, *moments, *images)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["1.png", "4.png"]
    counts = [len(picture["boxes"]) for picture in content["pictures"]]
    assert counts == [0, 1]
    early, late = content["rows"]
    assert [panel["criterion"] for panel in early] == ["O2F", "POTO, branch one_to_one", "DW, branch one_to_many"]
    assert [panel["moment"] for panel in late] == ["random weights, progress 1.00"] * 3
    soft = [next(t for f in row[0]["found"] for t in f["target"] if 0 < t < 1) for row in (early, late)]
    assert soft[0] > soft[1]
    assert kinds(early[1]) == {0}
    assert "o2f_r18_fpn_shapes_tiny and date_dw_r18_fpn_shapes_tiny" in content["note"]
    browser.open(tmp_path / "index.html")
    for image, count in enumerate(counts):
        browser.choose("image", image)
        assert browser.count(".truth") == [count] * 6
        assert browser.count(".kind0")[1] == count
    assert browser.errors() == []


def test_ignored_ground_truths_keep_their_numbers(root, tmp_path):
    """One criterion does not see them, the other drops their locations."""
    versus = "LLA/lla_r18_fpn_shapes_crowd"
    names = f"{CROWD.name}_odgt_val"
    content = show(tmp_path, names, "POTO/poto_r18_fpn_shapes_crowd", "--versus", versus)
    ((poto, lla),) = content["rows"]
    assert any(any(picture["ignored"]) for picture in content["pictures"])
    for picture, found in zip(content["pictures"], poto["found"], strict=True):
        objects = [i for i, ignored in enumerate(picture["ignored"]) if not ignored]
        assert sorted(found["gt"]) == objects
    assert kinds(poto) == {0} and kinds(lla) == {0, 3}
    for picture, found in zip(content["pictures"], lla["found"], strict=True):
        positives = [gt for gt, kind in zip(found["gt"], found["kind"], strict=True) if kind == 0]
        assert not any(picture["ignored"][gt] for gt in positives)


def test_every_image_has_a_file_of_its_own():
    assert file_stems(["1", "a/b", "photo (1)"]) == ["1", "a_b", "photo (1)"]
    for names in (["a/1", "a_1", "0_a_1"], ["\U0001f600" * 300 + "1", "\U0001f600" * 300 + "2"]):
        stems = file_stems(names)
        assert len(set(stems)) == len(names)
        assert max(len(stem.encode()) for stem in stems) < 250


def test_scheme_names():
    assert scheme_name(Path("projects/POTO/configs/poto_r50_fpn_6x_ms_coco.py")) == "poto_r50_fpn_6x_ms_coco"
    assert scheme_name(Path("POTO/poto_r18_fpn_shapes_tiny")) == "poto_r18_fpn_shapes_tiny"
    assert scheme_name(Path("output/run_1/config.yaml")) == "run_1"


class TestMoments:
    def test_without_weights_there_is_one(self):
        assert moments_of([[], []], []) == [[Moment()], [Moment()]]

    def test_one_value_goes_with_all_others(self):
        files = ["a.pth", "b.pth"]
        assert moments_of([files, files[:1]], [0.5]) == [
            [Moment(files[0], 0.5), Moment(files[1], 0.5)],
            [Moment(files[0], 0.5)] * 2,
        ]
        assert moments_of([files[:1]], [0.0, 1.0]) == [[Moment(files[0], 0.0), Moment(files[0], 1.0)]]

    def test_other_lengths_must_agree(self):
        with pytest.raises(UserError, match="--versus-weights has 2 values and another option 3"):
            moments_of([["a"] * 3, ["a"] * 2], [])
        with pytest.raises(UserError, match="--progress has 2 values"):
            moments_of([["a"] * 3], [0.0, 1.0])

    def test_a_folder_gives_its_checkpoints_in_order(self, tmp_path):
        names = ["model_0000999.pth", "model_0001999.pth", "model_final.pth"]
        for name in (*reversed(names), "metrics.json"):
            (tmp_path / name).write_text("")
        assert checkpoints_of([str(tmp_path), "x.pth"]) == [*(str(tmp_path / name) for name in names), "x.pth"]

    def test_a_folder_without_checkpoints(self, tmp_path):
        with pytest.raises(UserError, match="no checkpoints"):
            checkpoints_of([str(tmp_path)])


class TestRecords:
    RECORDS = [{"image_id": i, "file_name": f"{i}.jpg", "annotations": []} for i in range(10)]

    def test_evenly_spaced(self):
        assert [r["image_id"] for r in select_records(self.RECORDS, [], 3)] == [0, 4, 9]
        assert select_records(self.RECORDS, [], 100) == self.RECORDS

    def test_by_id(self):
        assert [r["image_id"] for r in select_records(self.RECORDS, ["7", "2"], 3)] == [7, 2]

    def test_unknown_id(self):
        with pytest.raises(UserError, match="--images 11: the data set has no such image_id"):
            select_records(self.RECORDS, ["11"], 3)

    def test_none(self):
        with pytest.raises(UserError, match="--num-images 0"):
            select_records(self.RECORDS, [], 0)

    def test_without_annotations(self):
        with pytest.raises(UserError, match="0.jpg: the data set has no annotations"):
            select_records([{"image_id": 0, "file_name": "0.jpg"}], [], 1)
