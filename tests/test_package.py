"""What the package declares, and the wheel in an environment of its own."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import HeaderParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from la_det import model_zoo
from tests.tiny_coco import write_tiny_coco

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Not on the registry; and the pip of the interpreter that install-detectron2 installs into.
UNDECLARED = {"detectron2", "pip"}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~!; ]", requirement)[0].lower().replace("_", "-")


DEPENDENCIES = set(map(name_of, PROJECT["dependencies"]))
OF_DEVELOPERS = {"dev", "docs"}
EXTRAS = {name_of(r) for name, of in PROJECT["optional-dependencies"].items() if name not in OF_DEVELOPERS for r in of}
FILES = sorted(path for folder in ("la_det", "configs", "projects") for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> tuple[set[str], set[str]]:
    """Distributions of other projects that a file imports: when it is imported itself, and later."""
    tree = ast.parse(path.read_text())
    later = {child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
    found: tuple[set[str], set[str]] = (set(), set())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [str(node.module)]
        for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"la_det"}:
            names_of_it = [d.lower().replace("_", "-") for d in PACKAGES.get(name, [name])]  # OpenCV has several
            declared = [d for d in names_of_it if d in DEPENDENCIES | EXTRAS]
            found[node in later].add((declared or names_of_it)[0])
    return found


PACKAGES = packages_distributions()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_is_declared(path):
    at_once, later = imported(path)
    if path.name == "onnx_operators.py":  # which is only imported to write ONNX files
        at_once, later = set(), at_once | later
    assert at_once - UNDECLARED <= DEPENDENCIES
    assert later - UNDECLARED <= DEPENDENCIES | EXTRAS


def test_every_dependency_is_imported():
    everything = set.union(*(set.union(*imported(path)) for path in FILES))
    assert DEPENDENCIES - everything == {"tensorboard"}  # which Detectron2's writer imports
    assert EXTRAS - everything == {"onnx"}  # which torch.onnx needs


def test_one_minimal_python():
    (minimum,) = re.findall(r">=(3\.\d+)", PROJECT["requires-python"])
    assert f"Python {minimum} or newer" in (ROOT / "README.md").read_text()
    assert f"Python >= {minimum}" in (ROOT / "Makefile").read_text()
    classifiers = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert f"Programming Language :: Python :: {minimum}" in PROJECT["classifiers"] and len(classifiers) >= 3


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files, without network."""
    tree = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("la_det", "configs", "projects"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(tree / "out"), str(tree)], check=True)
    (built,) = (tree / "out").iterdir()
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of a new environment are, with the wheel; it borrows the packages of this environment."""
    env = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    python = str(env / "bin" / "python")
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--force-reinstall", str(wheel)], check=True)
    return env / "bin"


@pytest.mark.slow
def test_wheel_has_all_that_belongs_to_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    assert {"la_det/py.typed", "la_det/visualization/page.html", "la_det/model_zoo/projects/POTO/zoo.yaml"} <= {*names}
    assert not [name for name in names if "la_det/testing" in name or name.endswith("golden.py")]
    assert not [name for name in names if not name.startswith("la_det")], "top-level packages of other names"
    assert headers["Requires-Python"] == ">=3.11" and headers["Description-Content-Type"] == "text/markdown"
    assert headers.get_payload().lstrip().startswith("# la_det")


@pytest.fixture
def run(bin_folder, tmp_path):
    """Runs a program of the new environment in an empty folder, far from the checkout, and returns its output."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        spec = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run([str(bin_folder / command[0]), *command[1:]], **spec)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


NO_WORKERS = ["train.device=cpu", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]


@pytest.mark.slow
def test_own_data_in_three_lines(run, tmp_path):
    """As docs/two_minutes.md has it, but small, and from random weights, since no network is needed then."""
    pytest.importorskip("timm")
    write_tiny_coco(tmp_path, 30)
    recipe, data = "POTO/poto_r50_fpn_3x_ms_coco", "coco:images,train.json,images,val.json"
    fitted = ["--epochs", "1", "--image-size", "64", "--backbone", "timm:convnext_atto", "--batch", "8"]
    said = run(
        *(
            "la-det",
            "train",
            recipe,
            "--dataset",
            data,
            *fitted,
            "--output",
            "run",
            "train.init_checkpoint=",
            *NO_WORKERS,
        )
    )
    assert "Schedule: 4 iterations, 1.1 epochs of 28 images in batches of 8" in said
    assert "| bbox " in said and "nms_gap" in said
    run("la-det", "show", "run/config.yaml", "--weights", "run", "--num-images", "2", "--output", "seen")
    assert (tmp_path / "seen" / "index.html").is_file()
    run("la-det", "export", "run/config.yaml", "run/model_final.pth", "mine.onnx")
    assert "30 of 30 files done" in run("la-det", "detect", "--onnx", "mine.onnx", "images")


@pytest.mark.slow
def test_wheel_in_use(bin_folder, run, tmp_path):
    """From the list of configs to an exported detector with one's own matcher, far from the checkout."""
    write_tiny_coco(tmp_path)
    shutil.copy(ROOT / "docs" / "examples" / "my_detector.py", tmp_path)
    where = run("python", "-c", "import la_det; print(la_det.__file__)").strip()
    assert Path(where).is_relative_to(bin_folder.parent)
    assert run("la-det", "zoo", "list").split() == list(model_zoo.list())
    assert "published: AP 39.2" in run("la-det", "zoo", "show", "POTO/poto_r50_fpn_3x_ms_coco")
    assert "[ok]      la_det" in run("la-det", "doctor")
    run("python", "-c", "from la_det.model_zoo import get_records, list; assert sorted(get_records()) == [*list()]")
    run("python", "-c", "from la_det.model_zoo.configs.common.models.poto import model; assert model.num_classes == 80")
    small = ["dataloader.train.total_batch_size=2", *NO_WORKERS]
    data = ["--dataset", "coco:images,train.json,images,val.json"]
    run("la-det", "train", "my_detector.py", *data, "--output", "run", "train.max_iter=2", *small)
    weights = "run/model_final.pth"
    options = ["--opts", "train.device=cpu"]
    assert "loose |" in run("la-det", "eval", "my_detector.py", weights, *data, "--output", "run", *small)
    shown = ["--weights", weights, *data, "--num-images", "2"]
    run("la-det", "show", "my_detector.py", *shown, *options)
    assert len(list((tmp_path / "output" / "assignments").glob("*.png"))) == 2
    run("la-det", "export", "my_detector.py", weights, "mine.onnx", "model.num_classes=2", "train.device=cpu")
    assert "12 of 12 files done" in run("la-det", "detect", "--onnx", "mine.onnx", "images")
