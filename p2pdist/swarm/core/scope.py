"""How much of a blob this host wants: all of it, or the parts that demand readers need."""

from __future__ import annotations

from typing import Final

REST_S: Final = 10.0
"""So long after its last demand reader a host stays in the swarm. A container reads its files in
bursts, seconds apart, and coming back costs a handout and new offers from every neighbour; a
neighbour that exchanges nothing for so long is the first to be replaced anyway (`circle`)."""


class Scope:
    """Pure. All is wanted until a demand reader comes first; and from the first ordinary reader or
    order on, for good: what a pull began is finished, as somebody may want it by now."""

    def __init__(self) -> None:
        self.whole = True
        self._said = False
        """That it is: by an ordinary reader or an order."""
        self._rests_at_s: float | None = None

    def all_wanted(self) -> None:
        """An ordinary reader reads it, an order is to have it, or this host is a proxy."""
        self.whole = self._said = True
        self._rests_at_s = None

    def part_wanted(self) -> None:
        """A demand reader reads it."""
        self.whole = self._said
        self._rests_at_s = None

    def order_ended(self) -> None:
        """No ordinary reader is there either: only parts are wanted, if anything."""
        self.whole = self._said = False

    def unread(self, now_s: float) -> None:
        """The last reader left."""
        if not self.whole:
            self._rests_at_s = now_s + REST_S

    def validate(self, *, read: bool) -> None:
        """Assert what must hold after every event, of a blob that has readers or not; for tests
        and simulations."""
        assert self._rests_at_s is None or not (self.whole or read)
        assert self.whole or not self._said

    @property
    def rests_at_s(self) -> float | None:
        """When it is left alone: nobody needs a part of it any more."""
        return self._rests_at_s

    def rest_due(self, now_s: float) -> bool:
        """Whether that time has come; once."""
        due = self._rests_at_s is not None and now_s >= self._rests_at_s
        if due:
            self._rests_at_s = None
        return due
