"""`la-det reproduce` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import la_det
from la_det import cli
from la_det.data.root import DATASETS_ROOT
from la_det.data.shapes import ShapesSpec, make_shapes
from la_det.reproduction import rows
from tests.conversion.official_state import MANIFESTS, official_state
from tests.reproduction.stand_in import TWINS, Twin, write_records

ROOT = Path(__file__).parents[2]
ON_CPU = ("train.device=cpu", "dataloader.test.num_workers=0")
ROWS = Path("output/reproduce/rows")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the processes that the command starts
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """The stand-in for `la-det` in the processes that the command starts; the file of its calls."""
    script = shutil.copy(ROOT / "tests/reproduction/fake_la_det.py", tmp_path)
    monkeypatch.setattr(rows, "LA_DET", (sys.executable, script))
    return Path(f"{script}.calls")


@pytest.fixture
def data(monkeypatch) -> set[str]:
    """Names of the data sets that are taken to be there; all others are missing."""
    names = {"coco_2017_train", "coco_2017_val"}

    def missing(name: str) -> str:
        return "" if name in names else f"{name.partition('_')[0]} is looked for in nowhere; set it"

    monkeypatch.setattr(rows, "missing", missing)
    return names


def lines_of_table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "reproduce: name files or folders with published files, or give --train without them"),
        (". --train", "reproduce: name files or folders with published files, or give --train without them"),
        ("nowhere", "nowhere: no such file or folder"),
        (".", "no file named *.pkl, *.pth, *.safetensors in it"),
        ("--list --only yolo", "yolo: no config with published figures; see --list"),
        ("--list --records none.yaml", "none.yaml: No such file or directory"),
        ("x.pth --config POTO/poto_r50_fpn_3x_ms_coco", "FILE is none of the files; it has the form NAME=FILE"),
        ("x.pth --config POTO/potto=x.pth", "--config POTO/potto=x.pth: no config POTO/potto; did you mean POTO/"),
        (
            "x.pth --config POTO/poto_r50_fpn_3x_ms_coco=x.pth --config POTO/poto_r50_fpn_6x_ms_coco=./x.pth",
            "--config POTO/poto_r50_fpn_6x_ms_coco=./x.pth: POTO/poto_r50_fpn_3x_ms_coco is given for this file, too",
        ),
        ("--train --only tood_r50_fpn_2x", "tood_r50_fpn_2x: the published figures are of another repository's"),
    ],
)
def test_wrong_use(argv, message, capsys):
    if "x.pth" in argv:
        Path("x.pth").touch()
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", *argv.split()])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not of the form of projects/*/zoo.yaml"),
        ("a: {records: {POTO/poto_r50_fpn_3x_ms_coco: {publisht: {AP: 1}}}}", "publisht"),
        ("a: {records: {POTO/potto: {published: {AP: 1}}}}", "POTO/potto is no config of the model zoo"),
        ("a: {records: {POTO/poto_r50_fpn_3x_ms_coco: {published: {AP: much}}}}", "its AP is no number: much"),
        ("!!python/object/apply:os.system ['touch evil']", "not of the form of projects/*/zoo.yaml"),
    ],
)
def test_wrong_records(text, message, capsys):
    refuses_records(text, message, capsys)


@pytest.mark.parametrize("figures", ["published: {AP: FIGURE}", "published: {AP: 1}, noise: {AP: FIGURE}"])
@pytest.mark.parametrize(
    ("figure", "shown"),
    [(".nan", "nan"), (".inf", "inf"), ("-.inf", "-inf"), ("yes", "True"), ("1" + 400 * "0", "1000"), ("", "None")],
)
def test_records_that_are_no_finite_numbers(figures, figure, shown, capsys):
    text = f"a: {{records: {{POTO/poto_r50_fpn_3x_ms_coco: {{{figures.replace('FIGURE', figure)}}}}}}}"
    refuses_records(text, f"POTO/poto_r50_fpn_3x_ms_coco: its AP is no number: {shown}", capsys)


def refuses_records(text: str, message: str, capsys: pytest.CaptureFixture) -> None:
    Path("records.yaml").write_text(text)
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--list", "--records", "records.yaml"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: records.yaml: ") and message in line
    assert not Path("evil").exists()


def test_list(capsys):
    assert cli.main(["reproduce", "--list", "--only", "poto", "crowdhuman"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "AP 89.1, mMR 48.9, Recall 96.5" in lines[3]


class TestMissingData:
    """They are looked for before anything is converted or started."""

    def error(self, capsys, *argv: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(["reproduce", *argv])
        assert stop.value.code == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        return line

    @pytest.mark.parametrize(
        ("only", "message"),
        [
            ("coco", "error: coco is looked for in nowhere; set it"),
            ("crowdhuman", "error: crowdhuman is looked for in nowhere; set it"),
            ("", "error: coco is looked for in nowhere; set it | crowdhuman is looked for in nowhere; set it"),
        ],
    )
    def test_of_all_trainings(self, fake, data, capsys, only, message):
        data.clear()
        assert self.error(capsys, "--train", "--only", "poto", only) == message
        assert not fake.exists() and not Path("output").exists()

    def test_of_some_trainings(self, fake, data, capsys):
        argv = ["reproduce", "--train", "--only", "poto_r50", "--opts", "ap=39.2"]
        assert cli.main(argv) == 1
        lines = lines_of_table(capsys.readouterr().out)
        verdicts = {config.rpartition("_")[2]: verdict for config, *_, verdict in lines}
        assert (
            verdicts["crowdhuman"] == "crowdhuman is looked for in nowhere; set it"
            and "nowhere" not in verdicts["coco"]
        )
        assert "nowhere" in Path("output/reproduce/table.md").read_text()
        started = [json.loads(call)[1] for call in fake.read_text().splitlines()]
        assert started and all(config.endswith("_coco") for config in started)

    def test_of_one_of_two(self, fake, data, capsys):
        data.remove("coco_2017_train")
        assert "coco is looked for" in self.error(capsys, "--train", "--only", "poto_r50", "coco")

    def test_of_all_files(self, fake, data, capsys):
        torch.save({"model": official_state(MANIFESTS["poto_crowdhuman"])}, "poto.pth")
        message = self.error(capsys, "poto.pth", "--only", "poto", "crowdhuman")
        assert message == "error: crowdhuman is looked for in nowhere; set it"
        assert not fake.exists() and not Path("output").exists(), "nothing was converted"

    def test_of_a_measured_file_do_no_harm(self, fake, data, capsys):
        torch.save({"model": official_state(MANIFESTS["poto_crowdhuman"])}, "poto.pth")
        argv = ["reproduce", "poto.pth", "--only", "poto", "crowdhuman", "--opts", "ap=89.1"]
        data.add("crowdhuman_val")
        status = cli.main(argv)
        data.clear()
        assert cli.main(argv) == status
        assert len(fake.read_text().splitlines()) == 1

    def test_that_the_user_names(self, fake, capsys):
        line = self.error(capsys, "--train", "--only", "poto", "coco", "--dataset", "coco:images,val.json")
        assert line == f"error: {Path.cwd()}/images: no such file or folder; check the path"

    def test_that_options_name(self, fake, capsys):
        argv = ["--train", "--only", "poto_r50_fpn_3x", "coco", "--opts", "dataloader.train.dataset.names=coco:a,b"]
        assert self.error(capsys, *argv) == f"error: {Path.cwd()}/a: no such file or folder; check the path"
        assert not fake.exists()

    def test_of_coco(self, fake, capsys):
        """With Detectron2's own names of files."""
        if (DATASETS_ROOT / "coco").exists():
            pytest.skip("COCO is there")
        line = self.error(capsys, "--train", "--only", "poto", "coco")
        assert "COCO is looked for in " in line and line.endswith(
            "set DETECTRON2_DATASETS to the folder that has coco/"
        )


def test_a_file_that_several_configs_fit(fake, data, capsys, tmp_path):
    """The user's choice is taken by the name in the table and by every path, also by that of a link in a cache."""
    data.add("crowdhuman_val")
    for folder in ("files/downloads", "blobs"):
        Path(folder).mkdir(parents=True)
    torch.save({"model": official_state(MANIFESTS["poto_3dmf_crowdhuman"])}, "blobs/3fa9")
    Path("files/downloads/model_final.pth").symlink_to("../../blobs/3fa9")
    argv = ["reproduce", "files/downloads", "--only", "poto", "crowdhuman", "--opts", "ap=89.1"]
    aux = "POTO/poto_3dmf_aux_r50_fpn_30k_crowdhuman"
    assert cli.main(argv) == 1
    ((config, file, *_, problem),) = lines_of_table(capsys.readouterr().out)
    assert (config, file) == ("not known", "downloads/model_final.pth")
    assert f"say which with --config NAME=downloads/model_final.pth: {aux}, POTO/poto_3dmf_" in problem
    assert not ROWS.exists() and not fake.exists()

    name, path = "downloads/model_final.pth", Path("files/downloads/model_final.pth")
    for choice in (name, path, f"./{path}", tmp_path / path, "blobs/3fa9"):
        cli.main([*argv, "--config", f"{aux}={choice}"])
        ((config, file, *_),) = lines_of_table(capsys.readouterr().out)
        assert (config, file) == (aux, name)
    (record,) = map(json.loads, map(Path.read_text, ROWS.iterdir()))
    assert (record["config"], record["file"], record["by"]) == (aux, name, "--config")
    assert len(fake.read_text().splitlines()) == 1, "it was measured once"


@pytest.mark.parametrize(("ap", "verdict", "status"), [(39.2, "as published", 0), (30, "differs", 1)])
def test_training(fake, data, capsys, ap, verdict, status):
    config = "POTO/poto_r50_fpn_3x_ms_coco"
    assert cli.main(["reproduce", "--train", "--only", "poto_r50_fpn_3x", "--opts", f"ap={ap}"]) == status
    ((*cells, difference, found),) = lines_of_table(capsys.readouterr().out)
    assert cells == [config, "trained here", "AP 39.2", f"AP {ap:.2f}"] and found == verdict
    assert [json.loads(call)[:2] for call in fake.read_text().splitlines()] == [["train", config], ["eval", config]]
    assert verdict in Path("output/reproduce/table.md").read_text()


def test_a_stop_leaves_no_process_behind(tmp_path):
    Path("downloads").mkdir()
    torch.save({"model": official_state(MANIFESTS["poto_crowdhuman"])}, "downloads/poto.pth")
    script = shutil.copy(ROOT / "tests/reproduction/fake_la_det.py", tmp_path)
    code = (
        "import sys; from la_det import cli; from la_det.reproduction import rows\n"
        f"rows.LA_DET, rows.missing = ({sys.executable!r}, {script!r}), lambda name: ''\n"
        "cli.main(sys.argv[1:])"
    )
    argv = [sys.executable, "-c", code, "reproduce", "downloads", "--only", "poto", "crowdhuman", "--opts", "hang=1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 300
    while not any("hanging" in file.read_text() for file in Path("output").rglob("*.console.txt")):
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if os.access(file, os.R_OK)]
    assert not any(script.encode() in command for command in commands)


@pytest.fixture
def shapes(tmp_path) -> str:
    """Large Shapes in COCO's layout. All objects have the first of the ten classes: a short training finds them."""
    folder = make_shapes(
        ShapesSpec("large", 128, num_train=400, num_val=100, max_objects=3, min_extent=48, max_extent=96), tmp_path
    )
    for split in ("train", "val"):
        file = folder / "annotations" / f"{split}.json"
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        file.write_text(json.dumps(content))
    return f"coco:{folder}/train,{folder}/annotations/train.json,{folder}/val,{folder}/annotations/val.json"


def train(twin: Twin, dataset: str) -> tuple[dict[str, torch.Tensor], float]:
    """Train a twin briefly; its parameters, and its AP before they are renamed and converted."""
    options = ("train.max_iter=400", "dataloader.train.total_batch_size=8", "dataloader.train.num_workers=0")
    output = Path("trained", twin.manifest)
    results = la_det.train(twin.config, dataset=dataset, overrides=[*options, *ON_CPU, *twin.overrides], output=output)
    return torch.load(output / "model_final.pth", weights_only=True)["model"], results["bbox"]["AP"]


@pytest.mark.slow
def test_official_files_of_trained_twins(shapes, capsys):
    """Five are as published. A bent tensor, another architecture and a value that is not finite are found."""
    downloads = Path("downloads")
    downloads.mkdir()
    expected = {}
    for twin in TWINS:
        state, expected[twin] = train(twin, shapes)
        official = twin.published(state)
        torch.save({"model": official}, downloads / f"{twin.manifest}.pth")
    key = "bbox_head.reg_convs.1.conv.weight"
    bent = {**official, key: official[key].flip(0)}  # of the last twin: the same values in another order
    torch.save({"model": bent}, downloads / "bent.pth")
    torch.save({"model": official | {key: torch.full_like(official[key], float("nan"))}}, downloads / "nan.pth")
    torch.save({"state_dict": official_state(MANIFESTS["o2f_r50"])}, downloads / "other.pth")
    assert min(expected.values()) >= 5
    write_records(Path("records.yaml"), expected)

    argv = ["reproduce", "downloads", "--records", "records.yaml", "--dataset", shapes, "--opts", *ON_CPU]
    assert cli.main(argv) == 1
    records = {Path(row["file"]).name: row for row in map(json.loads, map(Path.read_text, ROWS.iterdir()))}
    assert len(records) == 6, "those of the measured files: five twins and bent.pth"
    for twin, ap in expected.items():
        row = records[f"{twin.manifest}.pth"]
        assert row["config"] == twin.config
        assert abs(row["results"]["bbox"]["AP"] - ap) < 0.01
    verdicts = {cells[1]: cells[-1] for cells in lines_of_table(capsys.readouterr().out)}
    assert verdicts["downloads/bent.pth"] == "differs"
    assert records["bent.pth"]["config"] == TWINS[-1].config
    assert verdicts["downloads/nan.pth"].startswith(f"{key} has values that are not finite")
    assert verdicts["downloads/other.pth"].startswith("its keys (backbone.conv1.weight")
    assert list(verdicts.values()).count("as published") == 5

    before = {file: file.stat().st_mtime_ns for file in ROWS.iterdir()}
    whole = [str(downloads / f"{twin.manifest}.pth") for twin in TWINS]
    assert cli.main(["reproduce", *whole, *argv[2:]]) == 0, "they are as published, and were measured before"
    assert {file: file.stat().st_mtime_ns for file in ROWS.iterdir()} == before
