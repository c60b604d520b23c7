"""Runs tests again and again while every core is busy with something else.

    python -m tests.busy RUNS [pytest arguments]

What passes alone and fails here rests on the speed of a machine. Prints what failing runs said, and
a TARGET line; `make unit-busy RUNS=20` is the whole unit suite.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Ends with whoever started it, however that ended.
LOOP: Final = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
UNIT: Final = (
    "-n",
    "2",
    "--ignore=tests/e2e",
    "--ignore=tests/compose",
    "--ignore=tests/equality",
    "--ignore=tests/first_hour",
    "--ignore=tests/helm",
    "--ignore=tests/ansible",
)


@contextmanager
def busy_cores() -> Iterator[None]:
    """One endless loop for each core, at the priority of the tests."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main(runs: int, arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    failed = 0
    for run in range(1, runs + 1):
        with busy_cores():
            done = subprocess.run([*pytest, *arguments], stdout=subprocess.PIPE, text=True)
        lines = done.stdout.splitlines() or ["no output"]
        print(f"run {run} of {runs}: {lines[-1]}", flush=True)
        if done.returncode:
            print(done.stdout, flush=True)
        failed += done.returncode != 0
    print(f"TARGET unit_busy.runs_failed {failed} <= 0 {'ok' if not failed else 'missed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:] or list(UNIT)))
