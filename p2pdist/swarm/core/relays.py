"""To whom to pass the hashes of a chunk map on, and when.

Nearly every reader hears of them from the proxy itself, and shows it soon after by offering chunks
that they cover. So they go at once to those who may hear of them from us alone, and to the others
only when they do not show in time that they know. Relayed to everybody, each batch crossed every
link between peers twice: 2.6 frames a chunk among nine hosts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from p2pdist.model.ids import HostId

# Five batches of offers and more (`offers.BATCH_MAX_S`): whoever knows the hashes has shown it by
# then.
SHOWN_S: Final = 0.5


class RelayTo(NamedTuple):
    """Order: send `record` to `host`."""

    host: HostId
    record: bytes


class _Kept(NamedTuple):
    due_s: float
    record: bytes
    bits: int


class RelayPlan:
    """Pure. Keeps at most the records of one map; `holds_any` says what a reader offered."""

    def __init__(self, *, authority: bool, holds_any: Callable[[HostId, int], bool]) -> None:
        """`authority`: it is us whom the others hear of them from."""
        self._authority = authority
        self._holds_any = holds_any
        self._fed: dict[HostId, bool] = {}  # of the readers: whether they hear of the map elsewhere
        self._kept: deque[_Kept] = deque()

    def joined(self, host: HostId) -> None:
        self._fed.setdefault(host, False)

    def left(self, host: HostId) -> None:
        self._fed.pop(host, None)

    def heard_from(self, host: HostId) -> None:
        """A reader told us of the map itself."""
        if host in self._fed:
            self._fed[host] = True

    def relay(self, record: bytes, bits: int, now_s: float) -> list[RelayTo]:
        """`record` has the hashes of `bits`."""
        kept = not self._authority and any(self._fed.values())
        if kept:
            self._kept.append(_Kept(now_s + SHOWN_S, record, bits))
        return [RelayTo(h, record) for h, fed in self._fed.items() if not (kept and fed)]

    def dropped(self) -> None:
        """The map is gone."""
        self._kept.clear()

    def next_deadline_s(self) -> float | None:
        return self._kept[0].due_s if self._kept else None

    def handle_deadline(self, now_s: float) -> list[RelayTo]:
        orders: list[RelayTo] = []
        while self._kept and self._kept[0].due_s <= now_s:
            _, record, bits = self._kept.popleft()
            orders += [
                RelayTo(host, record)
                for host, fed in self._fed.items()
                if fed and not self._holds_any(host, bits)
            ]
        return orders
