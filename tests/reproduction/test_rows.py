"""Rows from files and trainings, with a stand-in for `la-det`."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from la_det import model_zoo
from la_det.model_zoo.records import Record
from la_det.reproduction.rows import Reproduction, Row, Settings, all_reproduced
from la_det.reproduction.table import list_expected, table, write_table
from tests.conversion.official_state import MANIFESTS, official_state

POTO = "POTO/poto_r50_fpn_30k_crowdhuman"
RECORDS = {POTO: replace(model_zoo.get_records()[POTO], published={"AP": 12.3})}
# Two configs of the same parameters.
MAIN, AUX = (f"POTO/poto_3dmf{end}_r50_fpn_30k_crowdhuman" for end in ("", "_aux"))
TWO = {name: model_zoo.get_records()[name] for name in (MAIN, AUX)}


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

    def reproduction(
        *overrides: str, dataset: str | None = None, records: Mapping[str, Record] = RECORDS
    ) -> Reproduction:
        settings = Settings(dataset, overrides)
        return Reproduction(records, tmp_path / "out", settings, 2, (sys.executable, str(script)))

    return reproduction


@pytest.fixture(autouse=True)
def data(monkeypatch) -> None:
    """All data are taken to be there."""
    monkeypatch.setattr("la_det.reproduction.rows.missing", lambda name: "")


def calls(tmp_path: Path) -> list[list[str]]:
    file = tmp_path / "fake_la_det.py.calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def kept(tmp_path: Path) -> dict[str, bytes]:
    """Name -> content of the records."""
    return {file.name: file.read_bytes() for file in (tmp_path / "out" / "rows").glob("*")}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


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


def test_files_of_the_same_content_are_measured_once(files, make, tmp_path):
    reproduction = make("ap=12.3")
    shutil.copy(files / "poto.pth", files / "copy.pth")
    rows = [reproduction.of_file(f"downloads/{name}.pth", files / f"{name}.pth") for name in ("poto", "copy")]
    done = reproduction.measure(rows)
    assert [row.file for row in done] == ["downloads/poto.pth", "downloads/copy.pth"]
    assert [row.results for row in done] == [{"bbox": {"AP": 12.3, "AR": None}}] * 2
    assert len(calls(tmp_path)) == len(kept(tmp_path)) == 1


def test_a_file_that_was_renamed_is_not_measured_again(files, make, tmp_path):
    reproduction = make("ap=12.3")
    (first,) = reproduction.measure([reproduction.of_file("a.pth", files / "poto.pth")])
    (files / "poto.pth").rename(tmp_path / "moved.pth")
    row = make("ap=12.3").of_file("elsewhere/b.pth", tmp_path / "moved.pth", POTO)
    assert row == replace(first, file="elsewhere/b.pth", by="--config")
    other = make("ap=12.3", records={POTO: replace(RECORDS[POTO], published={"AP": 45.6})})
    assert other.of_file("b.pth", tmp_path / "moved.pth").published == {"AP": 45.6}


def test_a_problem_leaves_the_record_of_a_measured_row(make, tmp_path):
    """The same file is measured, and then given in ways in which it cannot be used."""
    file = tmp_path / "in.pth"
    torch.save({"model": official_state(MANIFESTS["poto_3dmf_crowdhuman"]), "meta": Path("x")}, file)
    reproduction = make("ap=12.3", records=TWO)

    def row(config: str | None = MAIN, allow_pickle: bool = True, path: Path = file) -> Row:
        return reproduction.of_file("in.pth", path, config, allow_pickle)

    (done,) = reproduction.measure([row()])
    before = kept(tmp_path)
    problems = {
        "these configs have its parameters": row(config=None),
        "no config of an official model": row(config="POTO/potto"),
        "--allow-pickle reads it": row(allow_pickle=False),
        "Is a directory": row(path=tmp_path),
        "No such file": row(path=tmp_path / "gone.pth"),
    }
    for problem, with_problem in problems.items():
        assert problem in with_problem.problem
    assert reproduction.measure(problems.values()) == list(problems.values())
    (other,) = reproduction.measure([row(config=AUX)])
    assert other.config == AUX and len(kept(tmp_path)) == 2
    assert before.items() <= kept(tmp_path).items()
    assert row() == done and len(calls(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("目" * 80, "目" * 80),
        ("x" * 251, "x" * 251),
        ("a  b", "a  b"),
        ("a|b", "a&#124;b"),
        (r"a\|b", r"a\&#124;b"),
        ("a\nb", r"a\nb"),
        ("a\x1bb", r"a\x1bb"),
        (os.fsdecode(b"a\xff"), r"a\udcff"),
    ],
    ids=ascii,
)
def test_odd_names_of_files(files, make, tmp_path, caplog, name, shown):
    """They do no harm to measuring, to files that are written, to the log, and to the table."""
    caplog.set_level("INFO", "la_det")
    file = (files / "poto.pth").rename(files / f"{name}.pth")
    broken = (files / "cut.pth").rename(files / f"{name}.pkl")
    reproduction = make("ap=12.3")
    rows = [reproduction.of_file(f"downloads/{path.name}", path) for path in (file, broken)]
    done, failed = reproduction.measure(rows)
    assert (done.verdict(RECORDS), failed.results) == ("as published", {}) and failed.problem.isprintable()
    assert reproduction.of_file(done.file, file) == done
    assert all(path.name.isascii() and len(path.name) < 100 for path in (tmp_path / "out").rglob("*"))
    write_table(tmp_path / "table.md", [done, failed], RECORDS)
    lines = (tmp_path / "table.md").read_text().splitlines()[-2:]
    assert [cells(line)[1] for line in lines] == [f"downloads/{shown}.pth", f"downloads/{shown}.pkl"]
    assert {len(cells(line)) for line in lines} == {6}
    assert caplog.messages and all(message.isprintable() for message in caplog.messages)


def test_a_row_that_failed_is_measured_again(files, make, tmp_path):
    reproduction = make("ap=12.3", "fail=eval")
    row = reproduction.of_file("a.pth", files / "poto.pth")
    (failed,) = reproduction.measure([row])
    console = tmp_path / "out" / "runs" / f"{row.name}.console.txt"
    assert failed.problem == f"the data are gone (la-det eval; console in {console})"
    assert not all_reproduced([failed], RECORDS)
    assert not kept(tmp_path)
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
        "repository that is known here; la-det reproduce --list names these",
        "poto.pth": "",
        "short.pth": f"it fits no config, the closest is {POTO}: 1 missing (head.predictors.main.logits.bias)",
    }
    done = reproduction.measure(rows)
    assert [row.file for row in done] == list(problems) and len(calls(tmp_path)) == 1
    assert [row.verdict(RECORDS) for row in done if not row.problem] == ["as published"]
    assert not all_reproduced(done, RECORDS)
    assert list(kept(tmp_path)) == [f"{done[3].name}.json"], "that of the measured row"
    write_table(tmp_path / "table.md", done, RECORDS)
    lines = (tmp_path / "table.md").read_text().splitlines()[-5:]
    assert cells(lines[3]) == [POTO, "poto.pth", "AP 12.3", "AP 12.20", "AP -0.10", "as published"]
    assert cells(lines[4]) == ["not known", "short.pth", "", "", "", problems["short.pth"]]


def test_a_long_reason_is_whole_in_the_file_and_on_the_screen(tmp_path):
    reason = "a reason | of many words" * 30
    row = Row("a.pth", problem=reason)
    write_table(tmp_path / "table.md", [row], RECORDS)
    for text in ((tmp_path / "table.md").read_text(), table([row], RECORDS)):
        assert cells(text.splitlines()[-1])[-1].replace("&#124;", "|") == reason


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


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "",
        "[]",
        "5",
        b"\xff",
        {"results": 5},
        {"results": [1]},
        {"results": {"bbox": 5}},
        {"results": {"bbox": {"AP": "12.3"}}},
        {"results": {"bbox": {"AP": [12.3]}}},
        {"results": {"bbox": {"AP": True}}},
        {"results": {"bbox": {"AP": float("nan")}}},
        {"results": {"bbox": {"AP": 10**400}}},
        {"results": None},
        {"file": 5},
        {"key": None},
        {"config": ["x"]},
        {"problem": {}},
        {"published": 5},
        {"commands": "eval"},
        {"versions": []},
        {"unknown": 5},
    ],
    ids=lambda damage: repr(damage)[:50],
)
def test_a_damaged_record_is_named_and_made_again(make, tmp_path, damage, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("la_det"), "propagate", True)
    reproduction = make("ap=9.9")
    (done,) = reproduction.measure([reproduction.of_training(POTO)])
    (file,) = (tmp_path / "out" / "rows").iterdir()
    if isinstance(damage, dict):
        damage = json.dumps(json.loads(file.read_text()) | damage)
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    row = reproduction.of_training(POTO)
    assert row.name == done.name and not row.results
    assert f"{file}: damaged, so the row is measured again (" in caplog.text
    assert reproduction.measure([row]) == [done] and reproduction.of_training(POTO) == done


@pytest.mark.parametrize("damage", ["{", '{"file": "a", "results": 5}'])
def test_a_damaged_record_of_a_file(make, files, tmp_path, damage):
    reproduction = make("ap=9.9")
    (done,) = reproduction.measure([reproduction.of_file("a.pth", files / "poto.pth")])
    (file,) = (tmp_path / "out" / "rows").iterdir()
    file.write_text(damage)
    shutil.rmtree(tmp_path / "out" / "weights")
    row = reproduction.of_file("a.pth", files / "poto.pth")
    assert not row.results and not row.problem
    assert reproduction.measure([row]) == [done]


def test_a_record_of_a_failed_training_is_no_result(make, tmp_path):
    """Earlier versions wrote such records."""
    reproduction = make("ap=9.9")
    row = reproduction.of_training(POTO)
    file = tmp_path / "out" / "rows" / f"{row.name}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(asdict(replace(row, problem="the data are gone"))))
    assert reproduction.of_training(POTO) == row


def test_masks_without_ap_in_a_record_are_no_error(make):
    reproduction = make("ap=9.9")
    (done,) = reproduction.measure([reproduction.of_training(POTO)])
    odd = replace(done, results={"segm": {}})
    assert odd.verdict(RECORDS) == "differs" and "differs" in table([odd], RECORDS)


def test_the_list_names_files_and_their_places():
    records = model_zoo.get_records()
    text = list_expected(records.values())
    assert len(text.splitlines()) == 1 + sum(bool(record.published) for record in records.values())
    (line,) = (line for line in text.splitlines() if line.startswith(f"{POTO} "))
    assert "AP 88.5, mMR 52.2, Recall 96.3" in line and "https://github.com/Megvii-BaseDetection/DeFCN" in line
    assert line.endswith("poto.res50.fpn.crowdhuman.800size.30k")
    assert "(its files cannot be converted)" in text
