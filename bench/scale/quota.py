"""A share of a core for one process, by a cgroup of its own (v1 or v2; needs root)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PERIOD_US: Final = 100_000
_V1: Final = Path("/sys/fs/cgroup/cpu")
_V2: Final = Path("/sys/fs/cgroup")


@contextmanager
def core_share(share: float) -> Iterator[Callable[[int], None]]:
    """Yield what puts a process under the quota; raise OSError where this machine lets nobody."""
    group = (_V1 if _V1.is_dir() else _V2) / f"p2pdist-bench-{os.getpid()}"
    group.mkdir()
    quota_us = round(share * PERIOD_US)
    try:
        if _V1.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        yield lambda pid: _put(group, pid)
    finally:
        with contextlib.suppress(OSError):  # a process is still in it
            group.rmdir()


def _put(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))
