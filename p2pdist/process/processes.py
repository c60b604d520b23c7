"""Processes beside a daemon that give way to it."""

from __future__ import annotations

import contextlib
import os
from typing import Final

NICE: Final = 10
"""Linux weighs it with 110, where others have 1,024."""


def yield_to_others(pid: int) -> None:
    """Let a process have a tenth of what a busy core gives to a pull, and never interrupt one.

    Not less: with SCHED_IDLE it got a thousandth where every core was busy, and no index was made
    for as long as that lasted.
    """
    with contextlib.suppress(OSError):  # it has ended, or a sandbox forbids that
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
