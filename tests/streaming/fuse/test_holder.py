"""The holder with workers that only write down how they were started: nothing is mounted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pdist.streaming.fuse import holder
from p2pdist.streaming.fuse.holder import pause_s

WAIT_S = 30.0
# Stands in for `main`: a descriptor of a pipe is held, and nothing is mounted at the mount point.
HOLD = """
import os, signal, sys
from p2pdist.streaming.fuse import holder
holder.DEATHS_MAX = int(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))
fd = int(sys.argv[2])
sys.exit(holder.hold(sys.argv[3:], fd, "/nonexistent/mount"))
"""
# Writes one line to the descriptor that it was given: its pid and whether it takes over.
WORKER = """
import os, sys, time
fd = int(os.environ["P2PDIST_FUSE_FD"])
takeover = os.environ["P2PDIST_FUSE_TAKEOVER"]
os.write(fd, f"{os.getpid()} {takeover}\\n".encode())
how = sys.argv[1:]
if how[int(takeover)] == "stays":
    time.sleep(600)
sys.exit(int(how[int(takeover)]))
"""


class Held:
    """A holder that runs, and what its workers say."""

    def __init__(self, *worker: str, deaths_max: int = 20) -> None:
        said, fd = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(deaths_max), str(fd), *worker],
            pass_fds=(fd,),
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(fd)
        self._said = os.fdopen(said)

    def next_worker(self) -> tuple[int, bool]:
        pid, takeover = self._said.readline().split()
        return int(pid), takeover == "1"

    def end(self) -> int:
        return self.process.wait(WAIT_S)

    def errors(self) -> str:
        assert self.process.stderr
        return self.process.stderr.read()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(WAIT_S)
        assert self.process.stderr
        self.process.stderr.close()
        self._said.close()


@pytest.fixture
def held(request: pytest.FixtureRequest) -> Iterator[Held]:
    opened = Held(sys.executable, "-c", WORKER, *request.param)
    yield opened
    opened.close()


@pytest.mark.parametrize("held", [("stays", "stays")], indirect=True)
def test_a_worker_that_is_killed_is_followed_by_one_that_takes_over(held: Held) -> None:
    first, takes_over = held.next_worker()
    assert not takes_over

    for _ in range(3):
        os.kill(first, signal.SIGKILL)
        following, takes_over = held.next_worker()
        assert takes_over
        assert following != first
        first = following


@pytest.mark.parametrize("held", [("stays", "stays")], indirect=True)
def test_a_holder_that_is_told_to_end_takes_its_worker_along(held: Held) -> None:
    worker, _ = held.next_worker()

    held.process.terminate()

    assert held.end() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize("held", [("1", "0")], indirect=True)
def test_a_worker_that_wants_to_end_is_not_followed(held: Held) -> None:
    assert held.next_worker()[1] is False
    assert held.next_worker()[1] is True
    assert held.end() == 0


@pytest.mark.parametrize("held", [("1", str(holder.NO_TAKEOVER))], indirect=True)
def test_a_worker_that_cannot_take_over_ends_the_mount(held: Held) -> None:
    held.next_worker()
    held.next_worker()

    assert held.end() == 1
    assert "the mount ends" in held.errors()


@pytest.mark.parametrize("worker", [("false",), ("/nonexistent/worker",)])
def test_workers_that_die_again_and_again_end_the_mount(worker: tuple[str, ...]) -> None:
    held = Held(*worker, deaths_max=3)
    try:
        assert held.end() == 1
        assert "3 times in a row" in held.errors()
    finally:
        held.close()


def test_pauses_grow_and_are_bounded() -> None:
    pauses = [pause_s(deaths) for deaths in range(1, holder.DEATHS_MAX)]

    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == holder.PAUSE_S_MAX


def test_it_is_small_and_needs_nothing_but_the_standard_library() -> None:
    """It has to live for as long as every container: what it imports is what can break it."""
    code = "import sys; import p2pdist.streaming.fuse.holder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())

    ours = {name for name in imported if name.split(".")[0] == "p2pdist"}
    assert ours == {
        "p2pdist",
        "p2pdist.streaming",
        "p2pdist.streaming.fuse",
        "p2pdist.streaming.fuse.holder",
        "p2pdist.streaming.fuse.syscalls",
    }
    assert not imported & {"aiohttp", "asyncio", "msgspec", "threading"}
    assert len(Path(holder.__file__).read_text().splitlines()) <= 150
