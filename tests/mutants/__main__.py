"""Apply each mutant of the catalogue and run its nearest tests: all must be noticed.

`python -m tests.mutants [--jobs N] [--part K/N] [NAME ...]`
"""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.mutants.catalogue import Mutant, read_catalogue
from tests.mutants.running import UNMUTATED_S, Outcome, Verdict, Workspace, tried

T = TypeVar("T")
R = TypeVar("R")

ROOT = Path(__file__).parents[2]


class Copies:
    """Copies of the tree; each is worked on by one thread at a time."""

    def __init__(self, root: Path, directory: Path, count: int) -> None:
        self._free: queue.Queue[Workspace] = queue.Queue()
        self._count = count
        for number in range(count):
            workspace = Workspace(root, directory / str(number))
            workspace.check_imports()
            self._free.put(workspace)

    def each(self, items: Iterable[T], work: Callable[[Workspace, T], R]) -> Iterable[R]:
        """The results of `work`, in the order of `items`."""

        def on_a_copy(item: T) -> R:
            workspace = self._free.get()
            try:
                return work(workspace, item)
            finally:
                self._free.put(workspace)

        with ThreadPoolExecutor(self._count) as pool:
            yield from pool.map(on_a_copy, items)


def run(mutants: Sequence[Mutant], copies: Copies) -> bool:
    """Print what becomes of each mutant; return whether every one was noticed."""
    sets = list(dict.fromkeys(mutant.tests for mutant in mutants))
    unmutated = dict(zip(sets, copies.each(sets, lambda w, t: w.run(t, UNMUTATED_S)), strict=True))
    red = [(tests, out) for tests, out in unmutated.items() if not out.passed]
    for tests, outcome in red:
        print(f"{' '.join(tests)}: red without any mutant: {outcome.why}")
    if red:
        return False

    def trial(workspace: Workspace, mutant: Mutant) -> Outcome:
        return tried(workspace, mutant, unmutated[mutant.tests].seconds)

    outcomes = []
    for mutant, outcome in zip(mutants, copies.each(mutants, trial), strict=True):
        verdict = f"{mutant.name}: {outcome.verdict.value}"
        print(f"{verdict} ({outcome.why})" if outcome.why else verdict, flush=True)
        outcomes.append(outcome)
    return conclude(mutants, outcomes)


def conclude(mutants: Sequence[Mutant], outcomes: Sequence[Outcome]) -> bool:
    """Print who lived and the target; one that could not be tried is as good as one that lived.

    They are named once more at the end, where a log that was cut still has them.
    """
    survivors = [
        f"{mutant.name}: {outcome.verdict.value} ({outcome.why})"
        for mutant, outcome in zip(mutants, outcomes, strict=True)
        if outcome.verdict != Verdict.KILLED
    ]
    for survivor in survivors:
        print(f"not killed: {survivor}")
    ok = not survivors
    print(f"TARGET mutants.survivors {len(survivors)} <= 0 {'ok' if ok else 'short'}")
    return ok


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names, or all; raise SystemExit for a name that there is not."""
    mutants = read_catalogue()
    if unknown := set(names) - {mutant.name for mutant in mutants}:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
    return [mutant for mutant in mutants if not names or mutant.name in names]


def part_of(mutants: Sequence[Mutant], part: str) -> list[Mutant]:
    """Every n-th of them, from the k-th on, for `k/n`; raise ValueError for what is no part."""
    which, slash, count = part.partition("/")
    if not slash or not 1 <= int(which) <= int(count):
        raise ValueError(f"{part!r} is no part, such as 1/2")
    return list(mutants[int(which) - 1 :: int(count)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="copies to work on side by side")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="the K-th of N parts of them")
    options = parser.parse_args()
    mutants = part_of(chosen(options.names), options.part)
    with tempfile.TemporaryDirectory(prefix="p2pdist-mutants-") as directory:
        copies = Copies(ROOT, Path(directory), max(1, options.jobs))
        return 0 if run(mutants, copies) else 1


if __name__ == "__main__":
    sys.exit(main())
