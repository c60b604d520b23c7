"""Hold a trace against what must hold, and say what it tells.

    python -m bench.sim replay FILE...

Traces are written by `p2pdist peer --trace FILE`, `p2pdist proxy --trace FILE` and by
`python -m bench.sim SCENARIO --trace FILE`. Files of several hosts are read one after the other.
Exit code 1: something did not hold; 2: a file that cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.sim.checking import Checker, Motion, NoTrace, name
from p2pdist.swarm.core.trace_lines import Line

LINE_BYTES_MAX: Final = 4 << 20
"""A scattered set of a million chunks is less."""
SHOWN: Final = 20


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sim replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    files: list[Path] = parser.parse_args(arguments).files
    checker = Checker()
    for file in files:
        try:
            read(file, checker)
        except (OSError, NoTrace) as error:
            print(f"{file}: {error}", file=sys.stderr)
            return 2
    for text in told(checker):
        print(text)
    for fault in checker.faults[:SHOWN]:
        print(fault)
    print(f"TARGET replay.faults {len(checker.faults)} <= 0 {'short' if checker.faults else 'ok'}")
    return 1 if checker.faults else 0


def read(file: Path, checker: Checker) -> None:
    """Raises OSError, NoTrace."""
    decode = msgspec.json.Decoder(Line).decode
    with file.open("rb") as lines:
        number = 0
        while data := lines.readline(LINE_BYTES_MAX):
            number += 1
            if not data.endswith(b"\n"):
                if len(data) == LINE_BYTES_MAX:
                    raise NoTrace(f"line {number} is too long")
                return  # its daemon was killed while it wrote
            try:
                checker.take(decode(data))
            except (msgspec.MsgspecError, NoTrace) as error:
                raise NoTrace(f"line {number}: {error}") from None


def told(checker: Checker) -> list[str]:
    """A line for each blob that something came of or was asked for, and the sums."""
    motions = [motion for motion in checker.motions if motion.asked or motion.sources]
    texts = [_row(motion) for motion in motions[:SHOWN]]
    if len(motions) > SHOWN:
        texts.append(f"... and {len(motions) - SHOWN} more")
    got = sum(motion.sources.total() for motion in motions)
    twice = sum(motion.twice for motion in motions)
    texts.append(
        f"{checker.lines:,} lines of {checker.hosts:,} hosts, {len(motions):,} blobs:"
        f" {got:,} chunks came, {twice:,} twice, {sum(m.wrong for m in motions):,} wrong;"
        f" {sum(m.asked for m in motions):,} were asked for,"
        f" {sum(m.taken_back for m in motions):,} taken back,"
        f" {sum(m.refused for m in motions):,} runs refused"
    )
    if checker.left_out:
        texts.append(f"{checker.left_out:,} lines were left out: what followed is not checked")
    return texts


def _row(motion: Motion) -> str:
    took = "not whole" if motion.whole_s is None else f"{motion.whole_s - motion.began_s:.3f} s"
    from_whom = ", ".join(
        f"{count} of {name(host) or 'nobody known'}"
        for host, count in motion.sources.most_common(4)
    )
    more = len(motion.sources) - 4
    return (
        f"{name(motion.host):8} {motion.blob} {motion.size_bytes / 1e6:8.1f} MB {took:>10}:"
        f" {from_whom or 'nothing'}{f' and {more} more' if more > 0 else ''}"
    )
