"""Rows from files and trainings, with a stand-in for `la-det`."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from la_det import model_zoo
from la_det.errors import UserError
from la_det.reproduction.rows import Reproduction, Row, Settings, all_reproduced
from la_det.reproduction.table import list_expected, table, write_table
from tests.conversion.official_state import MANIFESTS, official_state

POTO = "POTO/poto_r50_fpn_30k_crowdhuman"
RECORDS = {POTO: replace(model_zoo.get_records()[POTO], published={"AP": 12.3})}


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with a file of POTO, one of whose values is not finite, one of another model, and one that is cut."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    state = official_state(MANIFESTS["poto_crowdhuman"])
    torch.save({"model": state}, folder / "poto.pth")
    bias = "head.cls_score.bias"
    torch.save({"model": state | {bias: torch.tensor([float("nan")])}}, folder / "nan.pth")
    torch.save({"model": {key: value for key, value in state.items() if key != bias}}, folder / "short.pth")
    torch.save({"state_dict": official_state(MANIFESTS["o2f_crowdhuman_r50"])}, folder / "o2f.pth")
    (folder / "cut.pth").write_bytes((folder / "poto.pth").read_bytes()[:5000])
    return folder


@pytest.fixture
def make(tmp_path):
    """A reproduction that calls a copy of the stand-in."""
    script = Path(shutil.copy(Path(__file__).with_name("fake_la_det.py"), tmp_path))

    def reproduction(*overrides: str, dataset: str | None = None) -> Reproduction:
        settings = Settings(dataset, overrides)
        return Reproduction(RECORDS, tmp_path / "out", settings, 2, (sys.executable, str(script)))

    return reproduction


def calls(tmp_path: Path) -> list[list[str]]:
    file = tmp_path / "fake_la_det.py.calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_file_is_converted_and_evaluated(files, make, tmp_path):
    reproduction = make("ap=12.34", dataset="coco:images,val.json")
    row = reproduction.of_file("downloads/poto.pth", files / "poto.pth")
    assert (row.config, row.by, row.problem) == (POTO, "its parameters", "")
    (weights,) = (tmp_path / "out" / "weights").iterdir()
    (done,) = reproduction.measure([row])
    run = str(tmp_path / "out" / "runs" / row.name)
    expected = ["eval", POTO, str(weights), "--output", run, "--num-gpus", "2"]
    assert calls(tmp_path) == [[*expected, "--dataset", "coco:images,val.json", "ap=12.34"]]
    assert done.results == {"bbox": {"AP": 12.34, "AR": None}}
    assert done.verdict(RECORDS) == "as published" and all_reproduced([done], RECORDS)
    record = json.loads((tmp_path / "out" / "rows" / f"{row.name}.json").read_text())
    assert record["config"] == POTO and record["commands"] == calls(tmp_path)


def test_a_measured_row_is_not_measured_again(files, make, tmp_path):
    def measure(*overrides: str) -> Row:
        reproduction = make(*overrides)
        (done,) = reproduction.measure([reproduction.of_file("a.pth", files / "poto.pth")])
        return done

    first = measure("ap=12.3")
    assert measure("ap=12.3") == first and len(calls(tmp_path)) == 1
    assert measure("ap=11.3").results["bbox"]["AP"] == 11.3, "other settings"
    state = official_state(MANIFESTS["poto_crowdhuman"])
    torch.save({"model": state | {"head.cls_score.bias": torch.ones(1)}}, files / "poto.pth")
    measure("ap=12.3")
    assert len(calls(tmp_path)) == 3, "another file of this name"


def test_a_row_that_failed_is_measured_again(files, make, tmp_path):
    reproduction = make("ap=12.3", "fail=eval")
    row = reproduction.of_file("a.pth", files / "poto.pth")
    (failed,) = reproduction.measure([row])
    console = tmp_path / "out" / "runs" / f"{row.name}.console.txt"
    assert failed.problem == f"the data are gone (la-det eval; console in {console})"
    assert not all_reproduced([failed], RECORDS)
    assert not reproduction.of_file("a.pth", files / "poto.pth").problem
    reproduction.measure([reproduction.of_file("a.pth", files / "poto.pth")])
    assert len(calls(tmp_path)) == 2


def test_a_killed_evaluation(files, make):
    reproduction = make("ap=12.3", "kill=1")
    (row,) = reproduction.measure([reproduction.of_file("a.pth", files / "poto.pth")])
    assert row.problem.startswith("ended by SIGKILL (la-det eval; console in ")


def test_files_that_cannot_be_used_do_not_stop_the_others(files, make, tmp_path):
    reproduction = make("ap=12.2")
    rows = [reproduction.of_file(path.name, path) for path in sorted(files.iterdir())]
    problems = {row.file: row.problem for row in rows}
    assert problems == {
        "cut.pth": "damaged, or no PyTorch checkpoint; get the file again",
        "nan.pth": "head.cls_score.bias has values that are not finite (NaN or infinite); give another checkpoint",
        "o2f.pth": "its keys (backbone.conv1.weight, backbone.bn1.weight and 387 more) are not of an official "
        "repository that is known here",
        "poto.pth": "",
        "short.pth": f"it fits no config, the closest is {POTO}: 1 missing (head.predictors.main.logits.bias)",
    }
    done = reproduction.measure(rows)
    assert [row.file for row in done] == list(problems) and len(calls(tmp_path)) == 1
    assert [row.verdict(RECORDS) for row in done if not row.problem] == ["as published"]
    assert not all_reproduced(done, RECORDS)
    assert len(list((tmp_path / "out" / "rows").iterdir())) == 5
    write_table(tmp_path / "table.md", done, RECORDS)
    lines = (tmp_path / "table.md").read_text().splitlines()[-5:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[3] == [POTO, "poto.pth", "AP 12.3", "AP 12.20", "AP -0.10", "as published"]
    assert cells[4] == ["not known", "short.pth", "", "", "", problems["short.pth"]]


def test_an_evaluation_without_ap_is_no_figure(files, make):
    reproduction = make("ap=0")
    (row,) = reproduction.measure([reproduction.of_file("a.pth", files / "poto.pth")])
    assert row.problem.endswith("results.json: it has no AP; evaluate on one data set that has annotations")


def test_pickled_code_needs_the_flag(make, tmp_path):
    torch.save({"model": official_state(MANIFESTS["poto_crowdhuman"]), "meta": Path("x")}, tmp_path / "in.pth")
    reproduction = make()
    assert "--allow-pickle reads it" in reproduction.of_file("in.pth", tmp_path / "in.pth").problem
    assert not reproduction.of_file("in.pth", tmp_path / "in.pth", allow_pickle=True).problem


def test_a_training_goes_on_and_is_evaluated(make, tmp_path):
    reproduction = make("ap=9.9", "fail=train")
    row = reproduction.of_training(POTO)
    (failed,) = reproduction.measure([row])
    assert "(la-det train; console in" in failed.problem
    run = tmp_path / "out" / "runs" / row.name
    train = ["train", POTO, "--resume", "--output", str(run), "--num-gpus", "2", "ap=9.9", "fail=train"]
    assert calls(tmp_path) == [train]

    reproduction = make("ap=9.9")
    (done,) = reproduction.measure([reproduction.of_training(POTO)])
    assert [call[0] for call in calls(tmp_path)[1:]] == ["train", "eval"]
    assert calls(tmp_path)[2][2].endswith("model_final.pth")
    assert done.verdict(RECORDS) == "differs"
    assert reproduction.of_training(POTO) == done
    assert "| trained here | AP 12.3     | AP 9.90    | AP -2.40     | differs   |" in table([done], RECORDS)


def test_a_damaged_record_is_named(make, tmp_path):
    reproduction = make("ap=9.9")
    row = reproduction.of_training(POTO)
    file = tmp_path / "out" / "rows" / f"{row.name}.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(UserError, match=f"{row.name}.json: not a Row .*; delete it to have it made again"):
        reproduction.of_training(POTO)


def test_the_list_names_files_and_their_places():
    records = model_zoo.get_records()
    text = list_expected(records.values())
    assert len(text.splitlines()) == 1 + sum(bool(record.published) for record in records.values())
    (line,) = (line for line in text.splitlines() if line.startswith(f"{POTO} "))
    assert "AP 88.5, mMR 52.2, Recall 96.3" in line and "https://github.com/Megvii-BaseDetection/DeFCN" in line
    assert line.endswith("poto.res50.fpn.crowdhuman.800size.30k")
    assert "(its files cannot be converted)" in text
