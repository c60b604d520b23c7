"""Processes of the lab: a log file each, a readiness condition, an orderly and a brutal end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05
STOP_S: Final = 20.0
LOG_TAIL_BYTES: Final = 4000


class LabError(Exception):
    """The lab itself did not do what the test needs; carries the end of the log at fault."""


def wait_until(
    condition: Callable[[], bool], what: str, *, timeout_s: float = 30.0, log: Path | None = None
) -> None:
    """Return as soon as `condition` holds; raise LabError naming `what` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise LabError(f"no {what} within {timeout_s:g} s{_quoted(log)}")
        time.sleep(POLL_S)


def run(
    argv: Sequence[str], *, timeout_s: float = 60.0, env: Mapping[str, str] | None = None
) -> str:
    """Run a command to its end and return its stdout; raise LabError with its stderr."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def pids_with(word: str) -> list[int]:
    """The processes that have this word on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.fsencode(word) in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


class Process:
    """One long-running command; everything that it prints goes to `log`.

    Start it from the main thread: the kernel ends it (SIGTERM) with the thread that started it, so
    that nothing survives a test run that was killed itself.
    """

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._argv = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
        self._env = {**os.environ, **(env or {})}
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    @property
    def pid(self) -> int:
        """The process itself: what starts it (setpriv, nsenter) gives way to it."""
        assert self._running is not None, f"{self.name} was not started"
        return self._running.pid

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start it; `env`: more variables, for this time only."""
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._env, **(env or {})},
                start_new_session=True,
            )

    def wait_ready(self, ready: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
        """Return once `ready` holds; raise LabError if the process ends or the time is over."""

        def ready_or_dead() -> bool:
            return not self.alive or ready()

        wait_until(ready_or_dead, f"ready {self.name}", timeout_s=timeout_s, log=self.log)
        if not self.alive:
            raise LabError(f"{self.name} ended while starting{_quoted(self.log)}")

    def stop(self) -> None:
        """Ask for an orderly end, then insist; does nothing to a process that has ended."""
        if self._running is None:
            return
        self._running.send_signal(signal.SIGCONT)  # a paused process hears nothing else
        self._running.terminate()
        try:
            self._running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._running = None

    def pause(self) -> None:
        """Stop it where it stands (SIGSTOP): its connections stay open, and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait_ended(self, timeout_s: float = 30.0) -> int:
        """Return the exit status of a process that ends by itself; negative: the signal."""
        assert self._running is not None, f"{self.name} was not started"
        try:
            status = self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} did not end{_quoted(self.log)}") from None
        self._running = None
        return status

    def kill9(self) -> None:
        """End it as a crash would: no handler, no flush."""
        assert self._running is not None, f"{self.name} was not started"
        self._running.send_signal(signal.SIGKILL)
        self._running.wait()
        self._running = None


def log_tail(log: Path) -> str:
    """Return the last few kilobytes that a process printed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")


def _quoted(log: Path | None) -> str:
    return f"; end of {log.name}:\n{log_tail(log)}" if log is not None and log.exists() else ""
