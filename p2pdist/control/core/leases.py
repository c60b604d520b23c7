"""The leases of a host: asked for, held and renewed until they are given back or refused.

| event | from state | to state | said to the tracker |
| --- | --- | --- | --- |
| wanted | any | asked beside it | LeaseAsk |
| granted | asked | held | |
| granted | held (a renewal) | held for as long as it was | |
| granted | neither: nobody waits for it any more | not held | LeaseEnd |
| refused, asked or renewed | any | not held | |
| a third of its time over, or a new connection | held | held | LeaseAsk, under no number |
| ended by the host | any | not held | LeaseEnd |
| forgotten by the host | held | not held; it runs out at the tracker | |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from p2pdist.control.core.questions import Questions
from p2pdist.model.control import LeaseAnswer, LeaseAsk, LeaseEnd, SwarmKey
from p2pdist.model.members import Member

RENEW_TICK_S: Final = 1.0
# A lease that nobody ended by then was forgotten: the largest layers take minutes.
LEASE_KEPT_S: Final = 900.0
# Of a renewal, which nobody waits for; the numbers of questions begin above it.
NO_SEQ: Final = 0


@dataclass(slots=True)
class HeldLease:
    fence: int
    """Above 0, which is a refusal."""
    on_behalf: Member | None
    renew_at_s: float
    keep_until_s: float


class HostLeases:
    def __init__(self) -> None:
        self._asked: Questions[Member | None] = Questions()
        """On whose behalf."""
        self._held: dict[SwarmKey, HeldLease] = {}
        self._tick_at_s: float | None = None
        """When the held ones are looked at next; None without a connection."""

    @property
    def held(self) -> dict[SwarmKey, HeldLease]:
        return self._held

    # --- the connection -------------------------------------------------------------------------

    def up(self, now_s: float) -> Iterator[LeaseAsk]:
        """Yield what a new tracker has to be asked: it may know of no lease."""
        self._tick_at_s = now_s + RENEW_TICK_S
        for key, held in self._held.items():
            yield LeaseAsk(NO_SEQ, key, held.on_behalf)

    def down(self) -> list[int]:
        """Return the questions that end with the connection; what is held stays so."""
        self._tick_at_s = None
        return self._asked.pop_all()

    # --- the host -------------------------------------------------------------------------------

    def want(self, seq: int, key: SwarmKey, until_s: float, on_behalf: Member | None) -> LeaseAsk:
        assert seq > NO_SEQ
        self._asked.ask(seq, on_behalf, until_s)
        return LeaseAsk(seq, key, on_behalf)

    def give_up(self, seq: int) -> None:
        self._asked.pop(seq)

    def end(self, key: SwarmKey, fence: int) -> LeaseEnd:
        held = self._held.pop(key, None)
        return LeaseEnd(key, held.fence if held is not None else fence)

    # --- the tracker ----------------------------------------------------------------------------

    def answered(self, answer: LeaseAnswer, now_s: float) -> tuple[bool, LeaseEnd | None]:
        """Return whether somebody waited for it, and what to give back."""
        key, asked = SwarmKey(answer.key), self._asked.pop(answer.seq)
        held = self._held.get(key)
        if answer.fence == 0:
            self._held.pop(key, None)
        elif asked is not None:
            self._hold(answer, asked[0], now_s, now_s + LEASE_KEPT_S)
        elif held is not None:
            self._hold(answer, held.on_behalf, now_s, held.keep_until_s)
        else:
            return False, LeaseEnd(key, answer.fence)
        return asked is not None, None

    def _hold(
        self, answer: LeaseAnswer, on_behalf: Member | None, now_s: float, keep_until_s: float
    ) -> None:
        renew_at_s = now_s + answer.expires_in_s / 3
        lease = HeldLease(answer.fence, on_behalf, renew_at_s, keep_until_s)
        self._held[SwarmKey(answer.key)] = lease

    # --- time -----------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        tick_at_s = self._tick_at_s if self._held else None
        ends = (tick_at_s, self._asked.next_deadline_s())
        return min((end for end in ends if end is not None), default=None)

    def overdue(self, now_s: float) -> list[int]:
        """Return the questions that nobody answered in time."""
        return self._asked.pop_due(now_s)

    def renewals(self, now_s: float) -> Iterator[LeaseAsk]:
        """Yield the leases to ask for again, those without an answer at every tick; forget those
        that the host forgot."""
        if self._tick_at_s is None or now_s < self._tick_at_s:
            return
        self._tick_at_s = now_s + RENEW_TICK_S
        for key, held in list(self._held.items()):
            if held.keep_until_s <= now_s:
                del self._held[key]
            elif held.renew_at_s <= now_s:
                yield LeaseAsk(NO_SEQ, key, held.on_behalf)

    def validate(self, numbers: int, *, up: bool) -> None:
        """`numbers`: how many were given out. `up`: there is a connection."""
        self._asked.validate()
        assert (self._tick_at_s is not None) == up
        assert all(held.fence > 0 for held in self._held.values())
        # Questions are asked of a connection and end with it.
        assert up or not self._asked
        assert NO_SEQ not in self._asked
        assert all(seq <= numbers for seq in self._asked)
