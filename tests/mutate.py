#!/usr/bin/env python
"""Change one line of la_det at a time and see whether the fast tests notice; the changes are those of mutations.py.

    tests/mutate.py                 # all of them: half an hour on one core
    tests/mutate.py dw o2f          # those of files whose path contains one of these words

Works on a copy of the checkout. Exits 1 if a change survives that is not known to be equivalent, or does not apply.
"""

import argparse
import ast
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True  # a change of the same length within a second would not be seen

from tests.mutations import MUTATIONS, Mutation  # noqa: E402

TIMEOUT = 600  # seconds for the tests of a file
IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "output", ".*_cache", "*.egg-info")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only changes of files whose path contains one of these")
    return parser.parse_args()


def import_libraries() -> None:
    """Once for all children; nothing of la_det, of which each child has its own version."""
    import detectron2.data  # noqa: F401
    import detectron2.evaluation  # noqa: F401
    import detectron2.modeling  # noqa: F401
    import hypothesis  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch

    torch.set_num_threads(1)


def survives(mutation: Mutation, copy: Path) -> bool:
    """Runs the tests of the changed file in a child process, with the change in the copy."""
    path = copy / mutation.file
    original = path.read_text()
    changed = mutation.apply(original)
    ast.parse(changed)  # that it is no Python would always be noticed
    path.write_text(changed)
    child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT)
        os._exit(run_tests(mutation, copy))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    path.write_text(original)
    if status not in (0, 1, 2, -signal.SIGALRM):  # passed, failed, failed while tests were collected, never ended
        raise SystemExit(f"{mutation.file}: pytest ended with status {status} on {' '.join(mutation.tests)}")
    return status == 0


def run_tests(mutation: Mutation, copy: Path) -> int:
    os.chdir(copy)
    sys.path[0] = str(copy)
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "la_det")]:
        del sys.modules[name]
    output = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import pytest
    from hypothesis import Phase, settings

    settings.register_profile("mutate", phases=(Phase.explicit, Phase.generate))  # one failing example will do
    settings.load_profile("mutate")
    for tests in mutation.tests:
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
        status = pytest.main([*options, *shlex.split(tests)])
        if status:
            return int(status)
    return 0


def main() -> int:
    args = parse_args()
    chosen = [m for m in MUTATIONS if not args.words or any(word in m.file for word in args.words)]
    import_libraries()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        for mutation in chosen:
            start = time.monotonic()
            survived = survives(mutation, copy)
            bad += survived != bool(mutation.equivalent)
            verdict = "SURVIVED" if survived else "noticed"
            if mutation.equivalent:
                verdict = f"equivalent: {mutation.equivalent}" if survived else "NOTICED, so it is not equivalent"
            seconds = time.monotonic() - start
            print(f"{mutation.file}: {mutation.old!r} -> {mutation.new!r}: {verdict} ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen)} changes, {bad} with another outcome than they should have")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
