"""The engines' daemons: found by their pid files, told to reload, never restarted."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree

PID_BYTES_MAX: Final = 64


def running_pid(tree: Tree, pid_files: Sequence[Path], program: str) -> int | None:
    """Return the pid that one of `pid_files` names, if that is a `program`; else None."""
    for path in pid_files:
        try:
            pid = int(tree.read(path, size_max=PID_BYTES_MAX) or b"")
        except (OSError, ValueError, ConfigError):
            continue  # /var/run may be a link out of a tree; /run is asked too
        if (argv := command_line(pid)) and Path(argv[0]).name == program:
            return pid
    return None


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when there is none."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def ask_to_reload(pid: int | None, engine: str) -> str:
    """Send SIGHUP; return what was done, in words."""
    if pid is None:
        return f"{engine} does not run: it reads the file when it starts"
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        return f"not allowed to reload {engine} (pid {pid}): send it SIGHUP as root"
    except ProcessLookupError:
        return f"{engine} ended meanwhile: it reads the file when it starts"
    return f"{engine} (pid {pid}) was told to reload; nothing was restarted"
