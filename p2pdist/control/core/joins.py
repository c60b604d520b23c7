"""The swarms that a host is in, over any number of connections."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pdist.model.control import Delta, Handout, Join, SwarmKey

# Full: the oldest is forgotten; it is only missing after the next loss of the connection.
JOINS_MAX: Final = 4096


@dataclass(slots=True)
class _Active:
    """A swarm that this host is in, or one answer that it waits for."""

    join: Join
    """The newest one; its key is the one that this is kept under."""
    held: Delta | None = None
    """What was noted of it since it was joined; of the same key."""


class Joins:
    def __init__(self) -> None:
        self._active: OrderedDict[SwarmKey, _Active] = OrderedDict()
        """By age, never more than `JOINS_MAX`."""

    def __len__(self) -> int:
        return len(self._active)

    def join(self, seq: int, key: SwarmKey, *, member: bool, exclude: Sequence[str]) -> Join:
        """Return what to send. Who was a member stays one, whatever this asks for."""
        known = self._active.get(key)
        stays = member or (known is not None and known.join.member)
        join = Join(seq, key, stays, list(exclude))
        self._active[key] = _Active(join, known.held if known else None)
        if len(self._active) > JOINS_MAX:
            self._active.popitem(last=False)
        return join

    def leave(self, key: SwarmKey) -> bool:
        """Return whether the host was in it."""
        return self._active.pop(key, None) is not None

    def note(self, delta: Delta) -> None:
        active = self._active.get(SwarmKey(delta.key))
        if active is not None:
            active.held = delta

    def answered(self, handout: Handout) -> None:
        """Who only asked is in the swarm no longer; a late answer to an older join is nothing."""
        key = SwarmKey(handout.key)
        active = self._active.get(key)
        if active is not None and active.join.seq == handout.seq and not active.join.member:
            del self._active[key]

    def joins(self) -> list[Join]:
        """All, for a tracker that knows of none."""
        return [active.join for active in self._active.values()]

    def held(self) -> list[Delta]:
        """What the host holds of them, as far as it was noted."""
        return [active.held for active in self._active.values() if active.held is not None]

    def validate(self) -> None:
        assert len(self._active) <= JOINS_MAX
        for key, active in self._active.items():
            assert active.join.key == key
            assert active.held is None or active.held.key == key
