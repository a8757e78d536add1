"""What happens to a training when something goes wrong: injects faults and makes the table of docs/reliability.md.

python -m tests.reliability.faults [--write docs/reliability.md] [NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tabulate import tabulate

from tests.tiny_coco import write_tiny_coco

HEADS = ("fault", "bit-equal", "lines lost", "evaluations lost", "files changed", "seconds to end", "message")
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "cli" / "configs" / "tiny_poto.py"
TRAIN_NET = ROOT / "tools" / "train_net.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PERIODS = ["train.max_iter=12", "train.checkpointer.period=3", "train.eval_period=4", "train.log_period=2"]
BEGIN, END = "<!-- table: python -m tests.reliability.faults -->", "<!-- end of table -->"
TIMEOUT = 300  # seconds for a whole run

# Code that a run executes before the training command, to make a moment long enough to be hit.
SLOW_SAVE = """
import torch, time, builtins
save = torch.save
def slow(obj, file, **kwargs):
    save(obj, file, **kwargs); file.flush(); time.sleep(0.5)
torch.save = slow
"""
SLOW_EVALUATION = """
import time, la_det.engine.train as train
evaluate = train.evaluate_model
def slow(*args, **kwargs):
    time.sleep(0.5); results = evaluate(*args, **kwargs); time.sleep(0.5)
    return results
train.evaluate_model = slow
"""
SLOW_STEPS = """
import time, la_det.engine.trainer as trainer
run_step = trainer.Trainer.run_step
def slow(self):
    time.sleep(0.3); run_step(self)
trainer.Trainer.run_step = slow
"""
SMALL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""


@dataclass
class Row:
    """What a fault did.

    Attributes:
        losses_equal: losses and final weights after resuming are those of an unbroken run, to the last bit; None where
            no run went on.
        lines_lost, evaluations_lost: of metrics.json, against the unbroken run.
        files_changed: in the output folder by a command that was refused; None where it had to write.
        message: the one line that the user saw.
        seconds: from the fault to the end of all processes.
        problems: what should not have been.
    """

    name: str
    losses_equal: bool | None = None
    lines_lost: int | None = None
    evaluations_lost: int | None = None
    files_changed: int | None = None
    message: str = ""
    seconds: float | None = None
    problems: list[str] = field(default_factory=list)


class Lab:
    """Runs trainings in folders of its own, and breaks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_tiny_coco(folder / "data") if not (folder / "data").exists() else folder / "data"
        self._whole: dict[tuple[str, ...], Path] = {}

    def arguments(self, output: Path, *options: str) -> list[str]:
        dataset = f"coco:{self.data}/images,{self.data}/train.json,{self.data}/images,{self.data}/val.json"
        return ["--config-file", str(CONFIG), "--dataset", dataset, f"train.output_dir={output}", *PERIODS, *options]

    def start(self, output: Path, *options: str, before: str = "", launcher: tuple[str, ...] = ()) -> subprocess.Popen:
        """Start the training command, in a session of its own; its output goes to files beside the output folder."""
        run = [str(TRAIN_NET)]
        if before:
            train = "import sys; from la_det.cli import run; sys.exit(run('train', sys.argv[2:], 'train_net.py'))"
            run = ["-c", f"{before}\n{train}", str(TRAIN_NET)]
        out, err = (output.with_name(f"{output.name}.{kind}").open("w") for kind in ("out", "err"))
        return subprocess.Popen(
            [sys.executable, *launcher, *run, *self.arguments(output, *options)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            cwd=ROOT,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    def finish(self, output: Path, *options: str, **kwargs) -> int:
        return self.start(output, *options, **kwargs).wait(TIMEOUT)

    def whole(self, *options: str) -> Path:
        """The output folder of an unbroken run."""
        if options not in self._whole:
            output = self.folder / f"whole{len(self._whole)}"
            assert self.finish(output, *options) == 0, messages(output)
            self._whole[options] = output
        return self._whole[options]

    def broken(self, name: str) -> Path:
        output = self.folder / re.sub(r"\W+", "_", name)
        shutil.rmtree(output, ignore_errors=True)
        return output

    def compare(self, row: Row, output: Path, *options: str) -> Row:
        """Fill in what a resumed run has lost."""
        found, expected = metrics(output), metrics(self.whole(*options))
        row.losses_equal = losses(found) == losses(expected) and same_weights(output, self.whole(*options))
        row.lines_lost = len(expected.keys() - found.keys())
        wanted = evaluations(expected)
        row.evaluations_lost = sum(evaluations(found).get(i) != values for i, values in wanted.items())
        if not row.losses_equal or row.lines_lost or row.evaluations_lost:
            row.problems.append("the resumed run is not the unbroken one")
        return row


def metrics(output: Path) -> dict[tuple[int, bool], dict[str, float]]:
    """Lines by iteration and whether they have losses; a torn line is an error."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return {(line["iteration"], "total_loss" in line): line for line in lines}


def losses(lines: dict) -> dict:
    return {i: {k: v for k, v in line.items() if "loss" in k or k == "lr"} for i, line in lines.items()}


def evaluations(lines: dict) -> dict:
    found = {i: {k: v for k, v in line.items() if "/" in k and "assignment" not in k} for i, line in lines.items()}
    return {i: values for i, values in found.items() if values}


def same_weights(output: Path, other: Path) -> bool:
    a, b = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (output, other))
    parts = [part for part in ("model", "ema") if part in b]
    return all(torch.equal(a[part][name], value) for part in parts for name, value in b[part].items())


def messages(output: Path) -> str:
    """The last line on stderr that is ours, without paths."""
    text = output.with_name(f"{output.name}.err").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("error: ", "stopped by "))]
    return lines[-1] if lines else ""


def tracebacks(output: Path) -> int:
    return output.with_name(f"{output.name}.err").read_text().count("Traceback")


def fingerprint(output: Path) -> dict[str, str]:
    """Content of each file, without the lock."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before the fault"
        assert time.monotonic() < end, "it did not get so far"
        time.sleep(0.002)


def lines_of(output: Path) -> int:
    path = output / "metrics.json"
    return path.read_text().count("\n") if path.exists() else 0


def children(pid: int) -> list[int]:
    """Of a process, those that are Python and no helpers of multiprocessing."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"resource_tracker" not in command and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [other for child in below for other in descendants(child)]


def alive(pids: list[int]) -> list[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "Z"

    return [pid for pid in pids if state(pid) != "Z"]


@contextmanager
def timed(row: Row, pids: list[int], limit: float) -> Iterator[None]:
    """Measure until all of the processes have ended."""
    start = time.monotonic()
    yield
    while alive(pids) and time.monotonic() < start + limit + 30:
        time.sleep(0.05)
    row.seconds = time.monotonic() - start
    if alive(pids):
        row.problems.append("processes are left")
        for pid in alive(pids):
            os.kill(pid, signal.SIGKILL)
    elif row.seconds > limit:
        row.problems.append(f"it took {row.seconds:.0f} s")


def kill_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


VARIANTS = {
    "plain": (),
    "EMA": ("train.ema.enabled=True", "train.ema.decay=0.9"),
    "accumulation": ("train.grad_accum_steps=2",),
    "AMP": ("train.amp.enabled=True", "train.amp.dtype=float16"),
    "two processes": ("--num-gpus", "2"),
}
FAULTS: dict[str, Callable[[Lab, Row], Row]] = {}


def fault(name: str) -> Callable:
    def register(inject: Callable[[Lab, Row], Row]) -> Callable:
        FAULTS[name] = inject
        return inject

    return register


def killed(lab: Lab, row: Row, options: tuple[str, ...], moment: Callable[[Path], bool], before: str = "") -> Row:
    output = lab.broken(row.name)
    process = lab.start(output, *options, before=before)
    wait_for(lambda: moment(output), process)
    time.sleep(random.uniform(0, 0.3))
    kill_group(process)
    assert lab.finish(output, *options, "--resume") == 0, messages(output)
    return lab.compare(row, output, *options)


for _name, _options in VARIANTS.items():

    @fault(f"kill at a random moment, {_name}")
    def _kill(lab: Lab, row: Row, options: tuple[str, ...] = _options) -> Row:
        count = random.randint(1, 5)
        return killed(
            lab,
            row,
            options,
            lambda output: lines_of(output) >= count,
            "" if options[:1] == ("--num-gpus",) else SLOW_STEPS,
        )


@fault("kill during a checkpoint")
def _kill_in_checkpoint(lab: Lab, row: Row) -> Row:
    number = random.choice(("0000003", "0000005"))
    return killed(lab, row, (), lambda output: any(output.glob(f".model_{number}*")), SLOW_SAVE)


@fault("kill during an evaluation")
def _kill_in_evaluation(lab: Lab, row: Row) -> Row:
    return killed(lab, row, (), lambda output: (output / "model_0000007.pth").exists(), SLOW_EVALUATION)


@fault("kill during the final evaluation")
def _kill_in_final_evaluation(lab: Lab, row: Row) -> Row:
    return killed(lab, row, (), lambda output: (output / "model_final.pth").exists(), SLOW_EVALUATION)


def signalled(
    lab: Lab, row: Row, number: int, options: tuple[str, ...] = (), before: str = SLOW_STEPS, **kwargs
) -> Row:
    output = lab.broken(row.name)
    process = lab.start(output, *options, before=before, **kwargs)
    wait_for(lambda: lines_of(output) >= 2, process)
    with timed(row, [process.pid, *descendants(process.pid)], limit=30):
        process.send_signal(number)
        code = process.wait(TIMEOUT)
    row.message = messages(output)
    if not kwargs.get("launcher") and code != 128 + number:
        row.problems.append(f"exit status {code}")
    if tracebacks(output) and not kwargs.get("launcher"):
        row.problems.append("a traceback")
    assert lab.finish(output, *options, "--resume") == 0, messages(output)
    return lab.compare(row, output, *options)


for _signal in ("SIGTERM", "SIGINT", "SIGUSR1"):

    @fault(_signal)
    def _one_signal(lab: Lab, row: Row, number: int = getattr(signal, _signal)) -> Row:
        return signalled(lab, row, number)


@fault("SIGTERM, two processes")
def _signal_two(lab: Lab, row: Row) -> Row:
    return signalled(lab, row, signal.SIGTERM, VARIANTS["two processes"], before="")


@fault("SIGTERM during an evaluation")
def _signal_in_evaluation(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    process = lab.start(output, before=SLOW_EVALUATION)
    wait_for(lambda: (output / "model_0000003.pth").exists(), process)
    time.sleep(0.2)
    with timed(row, [process.pid], limit=30):
        process.send_signal(signal.SIGTERM)
        code = process.wait(TIMEOUT)
    row.message = messages(output)
    if "during an evaluation" not in row.message:
        row.problems.append("the message does not say when")
    if code != 128 + signal.SIGTERM:
        row.problems.append(f"exit status {code}")
    assert lab.finish(output, "--resume") == 0, messages(output)
    return lab.compare(row, output)


@fault("a second signal")
def _second_signal(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    slow = SLOW_STEPS.replace("0.3", "5")
    process = lab.start(output, "train.log_period=1", before=slow)
    wait_for(lambda: lines_of(output) >= 1, process)
    with timed(row, [process.pid], limit=3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        code = process.wait(TIMEOUT)
    if code != 128 + signal.SIGINT:
        row.problems.append(f"exit status {code}")
    assert lab.finish(output, "--resume", "train.log_period=2") == 0, messages(output)
    shutil.rmtree(output)
    return row


def failed(row: Row, output: Path, process: subprocess.Popen, code: int = 2, says: str = "") -> Row:
    """A command that has to end with one line."""
    row.message = messages(output)
    if process.returncode != code:
        row.problems.append(f"exit status {process.returncode}")
    text = output.with_name(f"{output.name}.err").read_text()
    if "Traceback" in text:
        row.problems.append("a traceback")
    if text.count("error: ") != 1:
        row.problems.append(f"{text.count('error: ')} messages")
    if says not in row.message:
        row.problems.append(f"the message does not say {says}")
    return row


@fault("a data loader's worker dies")
def _worker(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    options = ("dataloader.train.num_workers=2",)
    process = lab.start(output, *options, before=SLOW_STEPS)
    wait_for(lambda: lines_of(output) >= 2, process)
    with timed(row, [process.pid, *descendants(process.pid)], limit=30):
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        process.wait(TIMEOUT)
    failed(row, output, process, says="worker")
    assert lab.finish(output, *options, "--resume") == 0, messages(output)
    return lab.compare(row, output)


@fault("a process of two dies")
def _rank(lab: Lab, row: Row) -> Row:
    output, options = lab.broken(row.name), VARIANTS["two processes"]
    process = lab.start(output, *options, "train.max_iter=200", "train.eval_period=0")
    wait_for(lambda: lines_of(output) >= 2, process)
    pids = children(process.pid)
    with timed(row, [process.pid, *descendants(process.pid)], limit=30):
        os.kill(pids[-1], signal.SIGKILL)
        process.wait(TIMEOUT)
    return failed(row, output, process, says="process 1 was ended by SIGKILL")


@fault("the launcher of two is killed")
def _launcher(lab: Lab, row: Row) -> Row:
    output, options = lab.broken(row.name), VARIANTS["two processes"]
    process = lab.start(output, *options, "train.max_iter=2000", "train.eval_period=0")
    wait_for(lambda: lines_of(output) >= 2, process)
    with timed(row, [process.pid, *descendants(process.pid)], limit=30):
        process.kill()
        process.wait()
    return row


@fault("torchrun --max-restarts: a process dies")
def _torchrun(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    launcher = (*TORCHRUN, "--max-restarts", "3")
    process = lab.start(output, launcher=launcher)
    wait_for(lambda: (output / "model_0000002.pth").exists(), process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    assert process.wait(TIMEOUT) == 0, messages(output)
    return lab.compare(row, output, *VARIANTS["two processes"])


@fault("torchrun --max-restarts: a forgotten --resume")
def _torchrun_forgotten(lab: Lab, row: Row) -> Row:
    """The second attempt is refused, too."""
    output = lab.broken(row.name)
    shutil.copytree(lab.whole(), output)
    before = fingerprint(output)
    process = lab.start(output, "optimizer.lr=0.5", launcher=(*TORCHRUN, "--max-restarts", "1"))
    process.wait(TIMEOUT)
    count_changed(row, output, before)
    row.message = messages(output)
    if "--resume goes on with it" not in row.message:
        row.problems.append("it is not refused")
    return row


@fault("two trainings in one folder")
def _two(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    first = lab.start(output, before=SLOW_STEPS.replace("0.3", "2"))
    wait_for(lambda: (output / "model_0000002.pth").exists(), first)
    grow = ("config.yaml", "metrics.json", "log.txt")  # or stay as they are
    before = {name: (output / name).read_bytes() for name in grow}
    names = set(fingerprint(output))
    second = lab.start(output, "--resume", "optimizer.lr=0.5")
    second.wait(TIMEOUT)
    row.message = messages(output)
    failed(row, output, second, says="a training runs in it")
    gone = {name for name in names if not name.startswith((".", "model_")) and not (output / name).exists()}
    altered = {name for name in grow if name not in gone and not (output / name).read_bytes().startswith(before[name])}
    row.files_changed = len(gone | altered)
    if row.files_changed:
        row.problems.append("it changed files of the other")
    assert first.wait(TIMEOUT) == 0
    return lab.compare(row, output)


@fault("a used port")
def _port(lab: Lab, row: Row) -> Row:
    import socket

    output = lab.broken(row.name)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        process = lab.start(output, *VARIANTS["two processes"], "--dist-url", url)
        with timed(row, [process.pid], limit=30):
            process.wait(TIMEOUT)
    return failed(row, output, process, says="already in use")


@fault("the disk is full when a checkpoint is written")
def _full(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    process = lab.start(output, before=SMALL_DISK.format(size=1 << 20))
    process.wait(TIMEOUT)
    failed(row, output, process, says="cannot write")
    if list(output.glob(".model*")):
        row.problems.append("a temporary file is left")
    return row


@fault("the disk is full when the log is written")
def _full_log(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    options = ("train.log_period=1", "train.checkpointer.period=1000", "train.eval_period=0", "train.max_iter=900")
    process = lab.start(output, *options, before=SMALL_DISK.format(size=1 << 14))
    process.wait(TIMEOUT)
    return failed(row, output, process, says="cannot write the log")


@fault("the loss diverges on a full disk")
def _diverged(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    process = lab.start(output, "optimizer.lr=1e30", before=SMALL_DISK.format(size=1 << 14))
    process.wait(TIMEOUT)
    return failed(row, output, process, says="could not be written")


@fault("the loss diverges, two processes")
def _diverged_two(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    process = lab.start(output, *VARIANTS["two processes"], "optimizer.lr=1e30")
    process.wait(TIMEOUT)
    return failed(row, output, process, says="iteration 1: ")


@fault("the output folder vanishes")
def _gone(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    process = lab.start(
        output, "train.max_iter=5000", "train.eval_period=0", "train.checkpointer.period=5000", before=SLOW_STEPS
    )
    wait_for(lambda: lines_of(output) >= 2, process)
    with timed(row, [process.pid], limit=30):
        shutil.rmtree(output)
        process.wait(TIMEOUT)
    return failed(row, output, process, says=str(output))


def count_changed(row: Row, output: Path, before: dict[str, str]) -> None:
    after = fingerprint(output)
    row.files_changed = sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())
    if row.files_changed:
        row.problems.append("it changed files")


def refused(lab: Lab, row: Row, output: Path, *options: str, says: str) -> Row:
    """A command that may change nothing."""
    before = fingerprint(output)
    process = lab.start(output, *options)
    process.wait(TIMEOUT)
    count_changed(row, output, before)
    return failed(row, output, process, says=says)


@fault("a forgotten --resume")
def _forgotten(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    shutil.copytree(lab.whole(), output)
    return refused(lab, row, output, says="--resume goes on with it")


@fault("--resume with another pixel_mean")
def _other_pixels(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    shutil.copytree(lab.whole(), output)
    return refused(lab, row, output, "--resume", "model.pixel_mean=[1,2,3]", says="model.pixel_mean was")


@fault("--resume to fewer iterations")
def _fewer(lab: Lab, row: Row) -> Row:
    output = lab.broken(row.name)
    shutil.copytree(lab.whole(), output)
    return refused(lab, row, output, "--resume", "train.max_iter=5", says="is of iteration 11 already")


def damaged(lab: Lab, row: Row, damage: Callable[[Path], None]) -> Row:
    """The last checkpoint is damaged; the one before it is intact."""
    output = lab.broken(row.name)
    process = lab.start(output, before=SLOW_STEPS)
    wait_for(lambda: (output / "model_0000005.pth").exists() and lines_of(output) >= 3, process)
    kill_group(process)
    damage(Path(output, (output / "last_checkpoint").read_text()))
    assert lab.finish(output, "--resume") == 0, messages(output)
    printed = output.with_name(f"{output.name}.out").read_text()
    found = re.search(r"(\S*/)?(model_\d+\.pth: damaged[^;]*).*going on from.*", printed)
    row.message = re.sub(r"\S+/(?=model)", "", found[0]) if found else ""
    if not found:
        row.problems.append("it does not say which file is damaged")
    return lab.compare(row, output)


@fault("a flipped bit in the last checkpoint")
def _flipped(lab: Lab, row: Row) -> Row:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[random.randrange(len(content) // 4, len(content) // 2)] ^= 1 << random.randrange(8)
        path.write_bytes(content)

    return damaged(lab, row, flip)


@fault("the last checkpoint is cut")
def _cut(lab: Lab, row: Row) -> Row:
    return damaged(lab, row, lambda path: os.truncate(path, random.randrange(path.stat().st_size)))


def shown(row: Row) -> list[str]:
    def say(value: object) -> str:
        return (
            ""
            if value is None
            else {True: "yes", False: "NO"}.get(value, str(value))
            if isinstance(value, bool)
            else str(value)
        )

    message = re.sub(r"(?<![\w:/])/\S*/", "", row.message).replace("|", "\\|")
    seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
    cells = [
        row.name,
        say(row.losses_equal),
        say(row.lines_lost),
        say(row.evaluations_lost),
        say(row.files_changed),
        seconds,
    ]
    return [*cells, message]


def write(path: Path, rows: list[Row]) -> None:
    """Put rows into the table of a file, those of other faults stay."""
    text = path.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    cells = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text[start:end].split("\n") if "|" in line
    ]
    found = {row[0]: row for row in cells[2:]} | {row.name: shown(row) for row in rows}
    ordered = [found[name] for name in FAULTS if name in found]
    table = tabulate(ordered, HEADS, tablefmt="pipe", disable_numparse=True)
    path.write_text(f"{text[:start]}\n\n{table}\n\n{text[end:]}")


def tried(inject: Callable[[Lab, Row], Row], lab: Lab, name: str) -> Row:
    """The row of a fault; what went wrong with injecting it is a problem, too."""
    row = Row(name)
    try:
        return inject(lab, row)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        row.problems.append(f"{type(error).__name__}: {error}")
        return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the faults' names; all by default")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the rows into the table of this file")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        for name, inject in FAULTS.items():
            if not args.names or any(part in name for part in args.names):
                rows.append(row := tried(inject, lab, name))
                print(" | ".join(shown(row)), *row.problems, sep=" !! ", flush=True)
                if args.write:
                    write(args.write, rows)
    return any(row.problems for row in rows)


if __name__ == "__main__":
    sys.exit(main())
