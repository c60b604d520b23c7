"""What an engine's installation consists of: edits of files, and a word to the daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from p2pdist.engines.options import Options


@dataclass(frozen=True, slots=True)
class Target:
    """One file. `add` and `remove` are pure and idempotent; bytes in, bytes out."""

    path: Path
    add: Callable[[bytes | None], bytes]
    """From what is there (None: nothing) to what should be; raises ConfigError to refuse."""
    remove: Callable[[bytes], bytes | None]
    """Take only our part out of a file that was edited since; None: nothing else is in it."""
    let_go: Callable[[bytes, bytes | None], bytes | None] = lambda now, after: None
    """What a running engine has to read before the file becomes `after`, or it would go on as
    before; None: nothing."""
    wait_let_go: Callable[[], None] = lambda: None
    """Return once it has read that."""
    marked: Callable[[bytes], bool] = lambda now: False
    """Whether what is there shows by itself, without a record, that we put something in."""


@dataclass(frozen=True, slots=True)
class Plan:
    targets: Sequence[Target]
    reload: Callable[[], str]
    """Make the running engine read its files, never restart it; returns what was done, in words."""
    reload_text: str
    """What `reload` would do, for a dry run."""
    notes: Sequence[str] = field(default=())


class Engine(Protocol):
    name: str

    def plan(self, options: Options) -> Plan:
        """Look at the host; raise ConfigError, with reason and fix, where it would break pulls."""
        ...

    def shown(self, options: Options) -> Sequence[Target]:
        """The files that show by themselves whether they point to the mirror (`Target.marked`),
        also where installing would be refused."""
        ...

    def writes(self, path: Path, options: Options) -> bool:
        """Whether an installation may have written this file: else a record that says so lies."""
        ...
