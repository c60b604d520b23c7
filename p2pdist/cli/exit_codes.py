"""Exit codes, in one place; `docs/operations.md` lists them for users."""

from __future__ import annotations

import enum
from typing import Final


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


MEANINGS: Final = {
    Exit.DONE: "done",
    Exit.UNEXPECTED: (
        "something that no other command line mends: a disk that fails, a target of demo "
        "that is missed, or a bug, which says that it is one"
    ),
    Exit.USAGE: (
        "wrong usage or configuration, or a thing of this host in the way: a missing "
        "file, a right that is lacking, an address that is taken"
    ),
    Exit.NOT_FOUND: "no such image, tag, platform or job; a selector that means nobody",
    Exit.DENIED: "refused: by the registry, the proxy's list or a tracker",
    Exit.UPSTREAM: "mirror, tracker or registry out of reach, or it answers 429 or 5xx",
    Exit.INTEGRITY: "bytes that do not have their digest; none of them is kept",
    Exit.PARTIAL: "done in part: prewarm and replicas say where not",
    Exit.TIMEOUT: "the time is over (--timeout, --deadline)",
    Exit.TEMPORARY: ("not now: no space on the disk, no descriptor or memory left, too many jobs"),
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
    Exit.TERMINATED: "ended by SIGTERM",
}
