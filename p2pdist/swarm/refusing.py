"""How many links this process may hold, and a word when others have to be refused one."""

from __future__ import annotations

import logging
import resource
import time
from typing import Final

from p2pdist.model.handshake import Refusal
from p2pdist.model.members import Member
from p2pdist.process import logs

log = logging.getLogger(__name__)

LOG_EVERY_S: Final = 10.0
# Listeners, open blobs and HTTP connections get an eighth of the descriptors, or so many.
SPARE_MIN: Final = 256


def links_allowed(links_max: int) -> int:
    """Return `links_max`, or as many as the descriptors of this process leave room for.

    A host that is refused knows it and goes elsewhere; without a descriptor for it, it would wait
    in the kernel.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return links_max
    room = max(1, descriptors - max(SPARE_MIN, descriptors // 8))
    if room < links_max:
        logs.event(
            log, logging.INFO, "links.limited", links_max=room, wanted=links_max, nofile=descriptors
        )
    return min(links_max, room)


class RefusalLog:
    """One line for all that were refused since the last one, at most every `LOG_EVERY_S`."""

    def __init__(self) -> None:
        self._refused = 0
        self._said_s = -LOG_EVERY_S

    def note(self, member: Member, refusal: Refusal) -> None:
        self._refused += 1
        now_s = time.monotonic()
        if now_s - self._said_s < LOG_EVERY_S:
            return
        logs.event(
            log,
            logging.WARNING,
            "links.refused",
            reason=refusal.reason,
            hosts=self._refused,
            last=member.host_id,
        )
        self._refused, self._said_s = 0, now_s
