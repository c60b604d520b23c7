"""Keeps a FUSE mount while the process that answers it dies, or gives way to a newer one.

The kernel ends a mount when the last descriptor of its connection closes, and every container on it
fails. So it lies in this process, which does little that can fail and imports little.

    python -m p2pdist.streaming.fuse.holder [--nosuid] [--nodev] MOUNT_POINT WORKER [ARGUMENT…]

A worker that exits with 0 wants the mount to end, as does one with NO_TAKEOVER.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from typing import Final

from p2pdist.streaming.fuse.syscalls import MS_NODEV, MS_NOSUID, clear_stale, mount, unmount

FD_VARIABLE: Final = "P2PDIST_FUSE_FD"
TAKEOVER_VARIABLE: Final = "P2PDIST_FUSE_TAKEOVER"
"""`1` where another worker answered on the descriptor before."""
HOLDER_VARIABLE: Final = "P2PDIST_FUSE_HOLDER"
NO_TAKEOVER: Final = 69
"""EX_UNAVAILABLE of sysexits.h: requests that the last worker had taken would hang."""

STEADY_S: Final = 10.0
"""A worker that lived that long did not die of how it starts."""
PAUSE_S: Final = 0.05
PAUSE_S_MAX: Final = 2.0
DEATHS_MAX: Final = 20
"""In a row, about half a minute; then the mount ends, so that its readers get an error at last."""
GOODBYE_S: Final = 3.0
_HEEDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def pause_s(deaths: int) -> float:
    """How long to wait after so many deaths in a row: not at all after the first."""
    return 0.0 if deaths <= 1 else min(PAUSE_S * 2.0 ** (deaths - 2), PAUSE_S_MAX)


def hold(worker: list[str], fd: int, mount_point: str) -> int:
    """Have a worker running until one wants to end, none can, or a signal says so; exit status."""
    takeover, deaths = False, 0
    while True:
        began_s = time.monotonic()
        status = _run(worker, fd, mount_point, takeover=takeover)
        takeover = True
        if status is None or status == 0:
            return 0
        deaths = 1 if time.monotonic() - began_s >= STEADY_S else deaths + 1
        if status == NO_TAKEOVER or deaths >= DEATHS_MAX:
            _say(f"the worker ended with {status}, {deaths} times in a row: the mount ends")
            return 1
        _say(f"the worker ended with {status}; the next one starts in {pause_s(deaths):g} s")
        until_s = time.monotonic() + pause_s(deaths)
        while (left_s := until_s - time.monotonic()) > 0:
            if (got := signal.sigtimedwait(_HEEDED, left_s)) and got.si_signo != signal.SIGCHLD:
                return 0


def _run(worker: list[str], fd: int, mount_point: str, *, takeover: bool) -> int | None:
    """Return the exit status of a worker (below 0: the signal), None when we were told to end."""
    environment = os.environ | {
        FD_VARIABLE: str(fd),
        TAKEOVER_VARIABLE: str(int(takeover)),
        HOLDER_VARIABLE: str(os.getpid()),
    }
    try:
        pid = os.posix_spawnp(worker[0], worker, environment, setsigmask=())
    except OSError as error:
        _say(f"{worker[0]}: {error}")
        return 127
    while (status := _ended(pid)) is None:
        if signal.sigwait(_HEEDED) != signal.SIGCHLD:
            unmount(mount_point)  # first: what nobody uses ends in order
            _end(pid)
            return None
    return status


def _ended(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    until_s = time.monotonic() + GOODBYE_S
    while _ended(pid) is None:
        if (left_s := until_s - time.monotonic()) <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        signal.sigtimedwait((signal.SIGCHLD,), left_s)


def _say(what: str) -> None:
    with contextlib.suppress(OSError):  # who read our words may have ended before us
        print(f"p2pdist mount: {what}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="p2pdist.streaming.fuse.holder")
    parser.add_argument("--nosuid", action="append_const", dest="flags", const=MS_NOSUID)
    parser.add_argument("--nodev", action="append_const", dest="flags", const=MS_NODEV)
    parser.add_argument("--told-fd", type=int, default=2, help="where it says why it cannot mount")
    parser.add_argument("mount_point")
    parser.add_argument("worker", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
    try:
        clear_stale(options.mount_point)
        fd = mount(options.mount_point, sum(options.flags or ()))
    except OSError as error:
        os.write(options.told_fd, f"{error.strerror}\n".encode())
        return 1
    if options.told_fd > 2:
        os.close(options.told_fd)
    os.set_inheritable(fd, True)
    try:
        return hold(options.worker, fd, options.mount_point)
    finally:
        unmount(options.mount_point)


if __name__ == "__main__":
    sys.exit(main())
