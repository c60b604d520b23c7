"""Any order of promises, comings and goings: what is reserved is within the limit, and adds up.

A state machine of Hypothesis on the core alone; `validate` is called after every step.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.errors import StoreError
from p2pdist.model.ids import Digest
from p2pdist.store.core.room import Promise, Rank, Room, Tenant

MAX_BYTES = 1000
DISK_BYTES = 1200
NAMES = st.sampled_from([Digest(name) for name in "abcdef"])
SIZES = st.integers(0, 700)


class RoomMachine(RuleBasedStateMachine):
    """Carries out what a `Room` decides, as a store does, without a disk."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(MAX_BYTES, high_watermark=0.9, low_watermark=0.8)
        self.held: dict[Digest, int] = {}
        self.coming: dict[Digest, int] = {}
        self.promises: list[Promise] = []
        self.kept: dict[Digest, tuple[int, list[Promise]]] = {}
        """What should be kept, and for whom."""
        self.others = 0
        """Bytes of the disk that other programs have."""

    @property
    def used(self) -> int:
        return sum(self.held.values())

    @property
    def free(self) -> int:
        return DISK_BYTES - self.used - self.others

    def make_room(self, nbytes: int) -> bool:
        tenants = [Tenant(name, size, Rank.BLOB, 0.0) for name, size in self.held.items()]
        try:
            leaving = self.room.plan(nbytes, used=self.used, free=self.free, tenants=tenants)
        except StoreError:
            return False
        for tenant in leaving:
            del self.held[tenant.digest]
        return True

    @rule(sizes=st.dictionaries(NAMES, SIZES, max_size=4))
    def room_is_reserved(self, sizes: dict[Digest, int]) -> None:
        here, promise = self.held.keys() | self.coming.keys(), Promise()
        new = {name: size for name, size in sizes.items() if name not in here}
        lacking = self.room.share(promise, new)
        assert lacking == {name: new[name] for name in new if name not in self.kept}
        for name in new.keys() & self.kept.keys():
            self.kept[name][1].append(promise)
        self.promises.append(promise)
        if self.make_room(sum(lacking.values())):
            self.room.promise(promise, lacking)
            self.kept.update({name: (size, [promise]) for name, size in lacking.items()})

    @rule(name=NAMES, size=SIZES)
    def one_comes(self, name: Digest, size: int) -> None:
        """Perhaps in another size than was promised."""
        if name in self.held or name in self.coming:
            return
        self.room.claim(name)
        self.kept.pop(name, None)
        if self.make_room(size):
            self.room.reserve(size)
            self.coming[name] = size

    @rule(there=st.booleans())
    def what_came_is_there_or_failed(self, there: bool) -> None:
        if self.coming:
            name, size = self.coming.popitem()
            self.room.release(size)
            if there and size <= self.free:
                self.held[name] = size

    @rule(which=st.integers(0, 5))
    def a_promise_ends(self, which: int) -> None:
        if which < len(self.promises):
            ended = self.promises.pop(which)
            self.room.withdraw(ended)
            for name, (_, holders) in list(self.kept.items()):
                if ended in holders:
                    holders.remove(ended)
                    if not holders:
                        del self.kept[name]

    @rule(nbytes=st.integers(0, 300))
    def others_take_or_free_the_disk(self, nbytes: int) -> None:
        self.others = nbytes

    @invariant()
    def it_adds_up(self) -> None:
        self.room.validate()
        kept = sum(size for size, _ in self.kept.values())
        assert self.room.reserved_bytes == kept + sum(self.coming.values())

    @invariant()
    def the_limit_is_kept_once_all_that_is_reserved_has_come(self) -> None:
        assert self.used + self.room.reserved_bytes <= MAX_BYTES


RoomMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRoom = RoomMachine.TestCase
