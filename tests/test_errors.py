"""What commands do whose output nobody reads any more, with real pipes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNREAD = 141  # what shells show for a command that SIGPIPE ended


def run_unread(*argv: str, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python with a pipe without a reader as its stdout."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, *argv],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)


def run_lines(body: str, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    code = "from la_det.errors import UserError, one_line_errors\nwith one_line_errors():\n    " + body
    return run_unread("-c", code, unbuffered=unbuffered)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_ends_quietly(lines, unbuffered):
    """Short output is only written at the end."""
    done = run_lines(f"for i in range({lines}): print('line', i)", unbuffered)
    assert (done.returncode, done.stderr) == (UNREAD, "")


def test_other_errors_are_still_said():
    done = run_lines("print('line'); raise UserError('a.json: wrong; correct it')")
    assert (done.returncode, done.stderr) == (2, "error: a.json: wrong; correct it\n")
    done = run_lines("print('line'); raise KeyError('a bug')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'a bug'"
    assert "BrokenPipeError" not in done.stderr


def test_other_pipes_are_those_of_a_training():
    """Also where stdout is read."""
    body = "import os; reader, writer = os.pipe(); os.close(reader); os.write(writer, b'x')"
    code = f"from la_det.errors import one_line_errors\nwith one_line_errors():\n    {body}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: lost the connection to another process of the training")


@pytest.mark.parametrize("argv", [["zoo", "list"], ["zoo", "show", "FCOS/fcos_r18_fpn_shapes_tiny"]])
def test_command(argv):
    done = run_unread("-m", "la_det", *argv)
    assert (done.returncode, done.stderr) == (UNREAD, "")


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["train", "--help"]])
def test_help(argv):
    assert run_unread("-m", "la_det", *argv).stderr == ""


def test_tool():
    assert run_unread(str(ROOT / "tools" / "train_net.py"), "--help").stderr == ""
