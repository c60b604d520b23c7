"""The audit log: who did what not everybody may, and who was refused it.

Its lines are those of the log that have the field `audit`, `done` or `refused`, with `who` (whose
certificate was shown, or by what else) and `peer` (from which address). They are written whatever
`log.level` says. Nothing secret is in them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from p2pdist.exchange.accepting import network_of_address
from p2pdist.model.seldom import Seldom
from p2pdist.process import logs

SECRET: Final = "cluster secret"  # noqa: S105  # what it is called
"""Who showed what only those have who know it: one of many."""
NOBODY: Final = "nobody"
"""Who showed nothing that is believed."""

log = logging.getLogger("p2pdist.audit")
log.setLevel(logging.INFO)


class Refusals:
    """Logs what anybody can bring about: the same of one network once a minute, with how often it
    was `refused` since, and never more than a few lines of all networks together."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seldom: Seldom[tuple[str, str, str]] = Seldom()
        self._say = logs.Sparing(monotonic).event

    def event(
        self, logger: logging.Logger, level: int, name: str, *, who: str, peer: str, reason: str,
        **fields: Any,
    ) -> None:  # fmt: skip
        """As `logs.event`; `peer` is an address, `reason` one of few texts."""
        key = (name, reason, network_of_address(peer))
        if refused := self._seldom.happened(key, self._monotonic()):
            self._say(
                logger, level, name, audit="refused", who=who, peer=peer, reason=reason,
                refused=refused, **fields,
            )  # fmt: skip
