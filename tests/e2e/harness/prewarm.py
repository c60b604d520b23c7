"""The `p2pdist prewarm` command as an operator runs it, and meters on the lab's interfaces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self

from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import REPOSITORY_ROOT, Cluster

WINDOW_S: Final = 1.0
_METER: Final = """
import sys, time
interface = sys.argv[1] + ":"
while True:
    for line in open("/proc/self/net/dev"):
        name, _, numbers = line.strip().partition(" ")
        if name == interface:
            fields = numbers.split()
            print(time.monotonic(), fields[0], fields[8], flush=True)
    time.sleep(0.02)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class Operator:
    """Runs `p2pdist` on a host that reaches the trackers of all `clusters`."""

    def __init__(self, host: Host, clusters: Sequence[Cluster]) -> None:
        self._host = host
        self._clusters = clusters

    def prewarm(self, *args: str, timeout_s: float = 120.0) -> Outcome:
        process = self.start_prewarm(*args)
        stdout, stderr = process.communicate(timeout=timeout_s)
        return Outcome(process.returncode, stdout, stderr)

    def start_prewarm(self, *args: str) -> subprocess.Popen[str]:
        return self.start("prewarm", *args)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start `p2pdist VERB …`; the caller waits for it."""
        verb, *rest = args
        first = self._clusters[0]
        trackers = [word for c in self._clusters for word in ("--tracker", c.jobs_url)]
        common = ["--secret-file", str(first.secret_file), "--endpoint", first.endpoint]
        argv = [sys.executable, "-m", "p2pdist.cli.main", verb, *rest, *trackers, *common]
        return subprocess.Popen(
            self._host.inside(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(REPOSITORY_ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )


@dataclass(frozen=True, slots=True)
class Metered:
    """Bytes over an interface against time; `received` counts what it took in, `sent` the rest."""

    moments_s: list[float]
    received: list[int]
    sent: list[int]

    @property
    def received_bytes(self) -> int:
        return self.received[-1] - self.received[0]

    @property
    def sent_bytes(self) -> int:
        return self.sent[-1] - self.sent[0]


def peak_per_s(moments_s: Sequence[float], counts: Sequence[int]) -> float:
    """Return the most bytes of any window of 1 s, per second."""
    peak, right = 0.0, 0
    for left, start_s in enumerate(moments_s):
        while right < len(moments_s) and moments_s[right] < start_s + WINDOW_S:
            right += 1
        if right == len(moments_s):
            break
        span_s = moments_s[right] - start_s
        peak = max(peak, (counts[right] - counts[left]) / span_s)
    return peak


def busy_s(moments_s: Sequence[float], counts: Sequence[int], floor_per_s: float) -> float:
    """Return the time from the first to the last moment that carried at least `floor_per_s`."""
    at = list(zip(moments_s, counts, strict=True))
    busy = [
        (a[0], b[0]) for a, b in pairwise(at[::10]) if b[1] - a[1] >= floor_per_s * (b[0] - a[0])
    ]
    return busy[-1][1] - busy[0][0] if busy else 0.0


class Meter:
    """Counts bytes of one interface, 50 times a second, for as long as the block lasts."""

    def __init__(self, inside: Sequence[str], interface: str) -> None:
        self._argv = [*inside, sys.executable, "-c", _METER, interface]
        self.result: Metered

    @classmethod
    def of_host(cls, host: Host) -> Self:
        return cls(host.inside(), "eth0")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        text = self._process.communicate()[0]
        rows = [line.split() for line in text.splitlines()]
        full = [row for row in rows if len(row) == 3]
        self.result = Metered(
            [float(row[0]) for row in full],
            [int(row[1]) for row in full],
            [int(row[2]) for row in full],
        )
