"""Exit codes, in one place; `docs/operations.md` lists them for users."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    UPSTREAM = 5
    INTEGRITY = 6
    PARTIAL = 7
    TIMEOUT = 8
    TEMPORARY = 75
    INTERRUPTED = 130
    TERMINATED = 143
