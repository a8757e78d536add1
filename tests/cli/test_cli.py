"""`la-det` itself, what its subcommands share, and the tools that start them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from la_det import cli, model_zoo
from la_det.cli import arguments
from la_det.comparison.schemes import ENDINGS
from la_det.data.shapes import SHAPES
from la_det.data.sources import FORMAT
from la_det.model_zoo.records import get_records

ROOT = Path(__file__).parents[2]
TOOLS = {
    "train_net": "train",
    "demo": "detect",
    "export_model": "export",
    "convert_checkpoint": "convert",
    "show_assignments": "show",
    "compare_schemes": "compare",
    "benchmark": "bench",
    "check_dataset": "check-data",
    "doctor": "doctor",
    "install_detectron2": "install-detectron2",
}
HEAVY = ("torch", "detectron2", "numpy", "omegaconf", "PIL", "la_det.config", "la_det.modeling", "la_det.model_zoo")
# Python's start without site-packages: as where la_det's environment is not active.
BARE = [sys.executable, "-S", "-E"]


def python(*argv: str, **options) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, **options)


def test_help_lists_all_commands(capsys):
    for argv in (["--help"], []):
        with pytest.raises(SystemExit) as end:
            cli.main(argv)
        assert end.value.code == 0
        printed = capsys.readouterr().out
        assert all(f"\n  {name} " in printed and text in printed for name, text in cli.COMMANDS.items())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: la-det {command}")
    assert "\nexamples" in printed or command == "doctor"


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_help(tool, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(TOOLS[tool], ["--help"], f"{tool}.py")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {tool}.py")
    assert f"`la-det {TOOLS[tool]} --help` has examples." in printed or tool == "doctor"


def test_help_imports_nothing_that_takes_long():
    code = (
        "import sys\n"
        "from la_det.cli import COMMANDS, main\n"
        "for argv in (['--help'], *([name, '--help'] for name in COMMANDS)):\n"
        "    try:\n"
        "        main(argv)\n"
        "    except SystemExit:\n"
        f"        heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "        assert not heavy, (argv, heavy)\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "usage: la-det install-detectron2" in done.stdout


def test_wrong_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["trian"])
    assert end.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        "bench train FCOS/fcos_r18_fpn_shapes_tiny --batch-size 0",
        "bench train FCOS/fcos_r18_fpn_shapes_tiny --device nonsense",
        "bench train FCOS/nothing",
        "bench inference FCOS/nothing",
        "bench inference FCOS/fcos_r18_fpn_shapes_tiny --batch-sizes 1 0",
        "bench inference FCOS/fcos_r18_fpn_shapes_tiny --image-size 0 64",
        "bench evaluation FCOS/nothing",
        "bench evaluation FCOS/fcos_r18_fpn_shapes_tiny --images 0",
        "bench evaluation FCOS/fcos_r18_fpn_shapes_tiny --sides 300 100",
        "bench deploy FCOS/nothing --weights .",
        "bench matching --gts 0",
        "bench matching --repeats -1",
        "bench matching --threads 0",
        "bench matching --device nonsense",
        "bench matching --schemes nothing",
        "bench scaling --sizes many",
        "compare run --data shapes_tiny --max-iter 0",
        "compare cost --data shapes_tiny --rounds 0.5",
        "check-data shapes_tiny_val --objects 0",
        "reproduce --train --num-gpus 0",
        "show FCOS/fcos_r18_fpn_shapes_tiny --progress 7",
        "show FCOS/fcos_r18_fpn_shapes_tiny --progress nan",
        "show FCOS/fcos_r18_fpn_shapes_tiny --progress late",
        "show FCOS/fcos_r18_fpn_shapes_tiny --num-images 0",
    ],
)
def test_wrong_values_are_one_line(argv, tmp_path, monkeypatch, capsys):
    """Of options, and names of configs."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(argv.split())
    assert end.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "error: " in last
    assert any(word in last for word in argv.split()[2:])


def test_python_m_is_the_command():
    done = python("-m", "la_det", "--version")
    assert (done.returncode, done.stdout) == (0, f"la_det {__import__('la_det').__version__}\n")


@pytest.mark.parametrize("command", ["train", "eval"])
def test_only_required_arguments_are_asked_for(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command])
    names = "CONFIG, WEIGHTS" if command == "eval" else "CONFIG"
    assert capsys.readouterr().err.endswith(f"error: the following arguments are required: {names}\n")


def test_what_help_says_without_importing_it():
    assert arguments.DATASETS == FORMAT
    assert arguments.SHAPES == tuple(ENDINGS)
    assert set(arguments.SHAPES) == {name for name, spec in SHAPES.items() if spec.num_train}


class TestTools:
    @pytest.mark.parametrize("path", sorted(ROOT.glob("tools/[!_]*.py")), ids=lambda path: path.stem)
    def test_can_be_executed(self, path):
        assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env python3\n")

    @pytest.mark.parametrize("tool", TOOLS)
    def test_is_thin(self, tool):
        text = (ROOT / "tools" / f"{tool}.py").read_text()
        assert len(text.splitlines()) < 10 and f'start("{TOOLS[tool]}")' in text

    def test_starts_its_command(self):
        done = python(str(ROOT / "tools" / "train_net.py"), "--config-file", "nothing", cwd=ROOT)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("error: nothing: no such config file")

    @pytest.mark.parametrize("tool", ["train_net", "zoo_table", "make_shapes"])
    def test_says_how_to_be_started(self, tool):
        done = subprocess.run([*BARE, f"tools/{tool}.py"], cwd=ROOT, capture_output=True, text=True)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1
        assert line.startswith(f"error: this Python ({sys.executable}) lacks the package la_det; activate ")
        assert f"or start: .venv/bin/python tools/{tool}.py" in line

    def test_doctor_works_without_anything(self):
        done = subprocess.run([*BARE, "tools/doctor.py"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr == ""
        assert "[BROKEN] Detectron2: " in done.stdout and "-> la-det install-detectron2" in done.stdout

    def test_detectron2_is_installed_before_anything_else(self):
        done = subprocess.run(
            [*BARE, "tools/install_detectron2.py", "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0 and "--source" in done.stdout


# Gives a Python in which nobody finds Detectron2, whatever is installed.
WITHOUT_DETECTRON2 = """
import sys
from importlib.machinery import PathFinder

class Others:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] == "detectron2" else PathFinder.find_spec(name, path, target)

sys.meta_path = [Others if finder is PathFinder else finder for finder in sys.meta_path]
"""


class TestWithoutDetectron2:
    MESSAGE = "Detectron2 is missing; `la-det install-detectron2` installs it"

    @pytest.mark.parametrize("code", ["from la_det import Predictor", "import la_det.matchers", "import la_det.data"])
    def test_import_says_how_to_get_it(self, code):
        done = python("-c", f"{WITHOUT_DETECTRON2}import la_det\n{code}", cwd=ROOT)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {self.MESSAGE}"

    def test_command_says_it_in_one_line(self):
        code = f"{WITHOUT_DETECTRON2}from la_det.cli import main\nsys.exit(main(['zoo', 'list']))"
        done = python("-c", code, cwd=ROOT)
        assert (done.returncode, done.stderr) == (2, f"error: {self.MESSAGE}\n")

    def test_others_may_ask_whether_it_is_there(self):
        code = "import la_det, importlib.util\nassert importlib.util.find_spec('detectron2') is None\n"
        code += "try:\n    import detectron2\nexcept ModuleNotFoundError as error:\n    print(error)"
        done = python("-c", WITHOUT_DETECTRON2 + code, cwd=ROOT)
        assert (done.returncode, done.stdout) == (0, "No module named 'detectron2'\n"), done.stderr


class TestZoo:
    def test_lists_names(self, capsys):
        assert cli.main(["zoo", "list"]) == 0
        assert capsys.readouterr().out.split() == list(model_zoo.list())

    def test_lists_names_with_words(self, capsys):
        assert cli.main(["zoo", "list", "poto", "3DMF", "coco"]) == 0
        names = capsys.readouterr().out.split()
        assert "POTO/poto_3dmf_r50_fpn_3x_ms_coco" in names
        assert all("poto" in name.lower() and "3dmf" in name and "coco" in name for name in names)
        with pytest.raises(SystemExit):
            cli.main(["zoo", "list", "poto", "nothing"])
        assert capsys.readouterr().err == "error: poto nothing: no name of a config contains all these words\n"

    def test_shows_what_is_known(self, capsys):
        assert cli.main(["zoo", "show", "POTO/poto_r50_fpn_3x_ms_coco"]) == 0
        printed = capsys.readouterr().out
        assert "published: AP 39.2, AR@100 61.7" in printed and "github.com/Megvii-BaseDetection/DeFCN" in printed
        assert "measured here: none" in printed and "trained by: la-det train POTO/poto_r50_fpn_3x_ms_coco " in printed
        for name in get_records():
            assert cli.main(["zoo", "show", name]) == 0

    def test_unknown_name(self, capsys):
        with pytest.raises(SystemExit) as end:
            cli.main(["zoo", "show", "POTO/poto_r50_coco"])
        assert end.value.code == 2
        assert "no config of the model zoo; did you mean POTO/poto_" in capsys.readouterr().err
