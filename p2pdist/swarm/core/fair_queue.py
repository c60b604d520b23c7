"""What many senders say and one worker takes in, in its order: who says too much leaves.

A queue that turns away whoever comes when it is full lets a few who fill it shut out all others.
What several say alike waits here once and takes no room, as honest neighbours all pass on the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[S, T]):
    item: T
    senders: list[S | None]
    """The first one to say it, then all others."""
    key: Hashable = None
    takes_room: bool = True


class FairQueue(Generic[S, T]):
    """Pure. `None` as a sender is this node itself, which is never turned out and takes no room."""

    def __init__(self, items_max: int, *, alike_max: int = 0) -> None:
        """`alike_max`: of how many different items with a key the same is known again."""
        self._items_max = items_max
        self._alike_max = alike_max
        self._items: deque[_Waiting[S, T]] = deque()
        self._by_key: dict[Hashable, _Waiting[S, T]] = {}
        self._room: Counter[S] = Counter()
        self._total = 0  # of `_room`
        self._sheltered: set[S] = set()

    def __len__(self) -> int:
        return len(self._items)

    def put(
        self, sender: S | None, item: T, *, key: Hashable = None, sheltered: bool = False
    ) -> S | None:
        """Queue `item`; return who is turned out for it, if there was no room: whoever takes most
        of it, with all that does.

        `key`: whatever has the same is the same, and need not wait twice. `sheltered`: only others
        of that kind make it leave, while anyone else takes room.
        """
        if key is not None and (alike := self._by_key.get(key)) is not None:
            if sender not in alike.senders:
                alike.senders.append(sender)
            return None
        waiting = _Waiting(item, [sender])
        self._items.append(waiting)
        if key is not None and len(self._by_key) < self._alike_max:
            waiting.key, waiting.takes_room = key, False
            self._by_key[key] = waiting
        if sender is None or not waiting.takes_room:
            return None
        self._room[sender] += 1
        self._total += 1
        if sheltered:
            self._sheltered.add(sender)
        if self._total <= self._items_max:
            return None
        return self._turn_out()

    @property
    def head(self) -> T:
        """The oldest item. Raises IndexError when there is none."""
        return self._items[0].item

    def pop(self) -> tuple[list[S | None], T]:
        """Take out the oldest item, and all who said it. Raises IndexError when there is none."""
        waiting = self._items.popleft()
        if waiting.key is not None:
            del self._by_key[waiting.key]
        sender = waiting.senders[0]
        if sender is not None and waiting.takes_room:
            self._room[sender] -= 1
            self._total -= 1
            if not self._room[sender]:
                self._forget(sender)
        return waiting.senders, waiting.item

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        room = Counter[S]()
        keyed: dict[Hashable, _Waiting[S, T]] = {}
        for waiting in self._items:
            assert waiting.senders
            assert len(set(waiting.senders)) == len(waiting.senders)
            if waiting.key is not None:
                keyed[waiting.key] = waiting
            elif (sender := waiting.senders[0]) is not None:
                room[sender] += 1
            assert waiting.takes_room is (waiting.key is None)
        assert self._by_key == keyed, "what waits, and nothing else, is known again"
        assert len(keyed) <= self._alike_max
        assert self._room == room
        assert self._total == room.total() <= self._items_max
        assert self._sheltered <= room.keys()

    def _turn_out(self) -> S:
        def claim(sender: S) -> tuple[bool, int]:
            return sender not in self._sheltered, self._room[sender]

        loudest = max(self._room, key=claim)
        self._items = deque(
            waiting
            for waiting in self._items
            if not waiting.takes_room or waiting.senders[0] != loudest
        )
        self._forget(loudest)
        return loudest

    def _forget(self, sender: S) -> None:
        self._total -= self._room.pop(sender)
        self._sheltered.discard(sender)
