"""Which chunk a seed promises to which reader, so that each chunk leaves it about once.

Whoever is alone with chunks must not offer them to everybody: every reader would ask for the same
ones, and N copies would leave an uplink that has time for one. So it gives *credit*: a promise is
the offer of a few chunks to one reader. Few chunks are promised at any time, just enough that the
uplink never runs dry; how many that is, is learnt from whether it did. A chunk that was sent is
left to its reader to pass on, and is promised a second time only when nobody passed it on in the
time that others took, or when its reader is gone. A reader whose other sources are far slower than
we are says that it is hungry, and gets what it lacks while nobody else needs the uplink.

    promised ──asked──▶ asked of us ──sent──▶ with one reader ──passed on──▶ with two: done
        └──────────── not in time ────────────┴── back to be promised ──┘
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2pdist.model.bits import count_of, indexes, lowest, run_length, without
from p2pdist.model.ids import HostId
from p2pdist.swarm.core.patience import Patience
from p2pdist.swarm.core.tally import Tally
from p2pdist.swarm.core.uplink import Uplink

# What is promised and not sent yet, at the start and at most. 2 MiB are 170 ms at 100 Mbit/s;
# 32 MiB are 26 ms at 10 Gbit/s.
DEPTH_BYTES_FIRST: Final = 2 << 20
DEPTH_BYTES_MAX: Final = 32 << 20
DEPTH_CHUNKS_MIN: Final = 2
# Consecutive chunks that one reader gets at once, where there are enough for all: a run of 1 MiB.
STRIPE_CHUNKS_MAX: Final = 4


class Promise(NamedTuple):
    """Order: tell `host` that it may ask us for the chunks `bits`."""

    host: HostId
    bits: int


@dataclass(slots=True)
class _Reader:
    offered: int = 0
    """All that it was ever promised."""
    promised: int = 0
    """It did not ask for these yet. Mutually exclusive with `asked`."""
    asked: int = 0
    """It asked for these, which did not go out yet."""
    got: int = 0
    """We sent it these, or it said that it holds them."""
    asked_s: float = -math.inf
    """When it last asked for something."""
    sent_s: float = -math.inf
    """When something last went out to it."""
    passed_s: float = -math.inf
    """When a chunk that we had sent to it alone last turned up at somebody else."""

    @property
    def owed(self) -> int:
        return self.promised | self.asked


class _Wait(NamedTuple):
    """Since when something is waited for, and of whom."""

    since_s: float
    host: HostId
    bits: int


class SeedPlan:
    """The promises of one blob. Pure: time enters as `now_s`.

    Cost per event: a few operations on integers of one bit a chunk. Only a reader that goes costs a
    step for each of the others.
    """

    def __init__(self, chunk_size_bytes: int, uplink: Uplink, *, spares: bool) -> None:
        """`spares`: what those have that finished reading is left to them (a proxy). Else every
        seed gives its readers all it has: three seeds before one reader share the work.
        """
        self._spares = spares
        self._uplink = uplink
        self._depth_first = max(DEPTH_CHUNKS_MIN, DEPTH_BYTES_FIRST // chunk_size_bytes)
        self._depth_max = max(self._depth_first, DEPTH_BYTES_MAX // chunk_size_bytes)
        self._depth = float(self._depth_first)
        self._sent_since = 0  # chunks, since the depth was changed
        self._readers: dict[HostId, _Reader] = {}
        self._turns: deque[HostId] = deque()  # the readers; whose turn it is comes first
        self._hungry: set[HostId] = set()  # of the readers
        self._rested: dict[HostId, _Reader] = {}  # those that do not read any more, and have things
        self._tally = Tally()  # how many of all these have a chunk
        self._owed = Tally()  # to how many readers a chunk is owed
        self._held = 0
        self._whole = False
        self._fresh = 0
        """Chunks that no reader has, was promised or asked for."""
        self._stuck = 0
        """Chunks that one reader has and did not pass on."""
        self._single = 0
        """Chunks that one host has, and no second one is known to."""
        self._owed_chunks, self._asked_chunks = 0, 0
        self._joined_s = self._now_s = 0.0
        self._promises: deque[_Wait] = deque()
        self._requests: deque[_Wait] = deque()
        self._passings: deque[_Wait] = deque()
        self._to_ask, self._to_send, self._to_pass = Patience(), Patience(), Patience()
        self._promised_s: dict[int, float] = {}
        self._asked_s: dict[int, float] = {}
        self._given_to: dict[int, tuple[HostId, float]] = {}
        """For each of `_single`: who has it, and since when we know."""

    def close(self) -> None:
        """Nothing is promised any more."""
        self._uplink.set_busy(self, False)

    @property
    def depth(self) -> int:
        """How many chunks may be promised and not sent yet."""
        return int(self._depth)

    # --- readers --------------------------------------------------------------------------------

    def joined(self, host: HostId, now_s: float, *, offered: int = 0) -> None:
        """`offered`: what it was told already, when we were no seed yet."""
        if host not in self._readers:
            reader = self._rested.pop(host, None) or _Reader()
            reader.offered = offered
            self._readers[host] = reader
            self._turns.append(host)
            self._joined_s = now_s

    def left(self, host: HostId) -> None:
        """It does not read any more, but has what it has."""
        reader = self._readers.pop(host, None)
        if reader is not None:
            self._turns.remove(host)
            self._hungry.discard(host)
            owed = reader.owed
            self._settle(reader, owed)
            if self._spares:
                self._rested[host] = reader
                self._give_back(owed)
            else:
                self._tally.remove(reader.got)
                self._give_back(owed | reader.got)

    def set_hungry(self, host: HostId, hungry: bool) -> None:
        """We would bring it far more than its other sources do, it says; or that no more."""
        if hungry and host in self._readers:
            self._hungry.add(host)
        else:
            self._hungry.discard(host)

    def gone(self, host: HostId) -> None:
        """It cannot be reached any more: what only it had is to be promised anew."""
        self.left(host)
        self.retracted(host)
        self._rested.pop(host, None)

    def retracted(self, host: HostId) -> None:
        """It has nothing any more, of all that it had."""
        if (reader := self._of(host)) is not None:
            had, reader.got = reader.got, 0
            self._tally.remove(had)
            self._give_back(had)

    def holds(self, host: HostId, bits: int, now_s: float) -> None:
        """It said that it has `bits`, from wherever."""
        reader = self._of(host)
        if reader is None and self._spares:
            reader = self._rested[host] = _Reader()
        if reader is not None:
            self._settle(reader, bits)
            self._got(host, reader, bits, now_s)

    @property
    def passed_on(self) -> int:
        """The chunks that some other host has, for all that we know."""
        return self._tally.at_least(1)

    def knows(self, host: HostId) -> bool:
        """It reads from us, or did and has what it has."""
        return host in self._readers or host in self._rested

    def _of(self, host: HostId) -> _Reader | None:
        return self._readers.get(host) or self._rested.get(host)

    def _got(self, host: HostId, reader: _Reader, bits: int, now_s: float) -> None:
        """`host` has `bits`: it may be the first to, or those pass them on who were."""
        fresh = without(bits, reader.got)
        reader.got |= fresh
        first = without(fresh & self._held, self._tally.counted(fresh))
        passed = fresh & self._single
        self._tally.add(fresh)
        self._fresh = without(self._fresh, fresh)
        self._stuck = without(self._stuck, fresh)
        self._single = without(self._single, passed) | first
        for chunk in indexes(passed):
            giver, since_s = self._given_to.pop(chunk)
            self._to_pass.took(now_s - since_s)
            if (known := self._of(giver)) is not None:
                known.passed_s = now_s
        for chunk in indexes(first):
            self._given_to[chunk] = host, now_s
        if first:
            self._passings.append(_Wait(now_s, host, first))

    # --- our side -------------------------------------------------------------------------------

    def hold(self, bits: int, *, whole: bool) -> None:
        """We can serve `bits` from now on; `whole`: nothing of the blob lacks here."""
        fresh = without(bits, self._held)
        self._held |= fresh
        self._fresh |= without(fresh, self._tally.counted(fresh))
        self._whole = whole

    def asked(self, host: HostId, bits: int, now_s: float) -> None:
        """It asked us for `bits`, promised or not, and is being sent them."""
        reader = self._readers.get(host)
        if reader is None:
            return
        for chunk in indexes(bits & reader.promised):
            if (since_s := self._promised_s.pop(chunk, None)) is not None:
                self._to_ask.took(now_s - since_s)
        self._settle(reader, bits)
        reader.asked_s = now_s
        reader.asked |= bits
        self._owed.add(bits)
        reader.offered |= bits
        count = count_of(bits)
        self._owed_chunks += count
        self._asked_chunks += count
        self._fresh = without(self._fresh, bits)
        self._stuck = without(self._stuck, bits)
        self._requests.append(_Wait(now_s, host, bits))
        for chunk in indexes(bits):
            self._asked_s[chunk] = now_s

    def sent(self, host: HostId, bits: int, now_s: float) -> None:
        """`bits` went out to it."""
        reader = self._readers.get(host)
        if reader is None:
            return
        self._settle(reader, bits)
        if bits:
            reader.sent_s = now_s
        for chunk in indexes(bits):
            if (since_s := self._asked_s.pop(chunk, None)) is not None:
                self._to_send.took(now_s - since_s)
        self._got(host, reader, bits, now_s)
        self._adapt(count_of(bits))

    def unsent(self, host: HostId, bits: int) -> None:
        """It took its request for `bits` back, or they could not be sent."""
        if (reader := self._readers.get(host)) is not None:
            owed = bits & reader.asked
            self._settle(reader, owed)
            self._give_back(owed)

    def _adapt(self, chunks: int) -> None:
        """Promise more at a time when the uplink ran dry, and less when it did not for long."""
        self._sent_since += chunks
        dry = not self._asked_chunks and bool(self._fresh or self._hungry)
        if dry and self._sent_since >= self._depth / 2:  # what the last change did is seen by now
            self._depth = min(self._depth_max, self._depth * 1.5)
            self._sent_since = 0
        elif self._sent_since >= 16 * self._depth:
            self._depth = max(self._depth_first, self._depth * 0.9)
            self._sent_since = 0

    # --- promises -------------------------------------------------------------------------------

    def refill(self, now_s: float) -> list[Promise]:
        """Promise as much as fits; call it after every other event."""
        self._now_s = now_s
        fresh_to_come = bool(self._fresh or self._stuck or not self._whole)
        self._uplink.set_busy(self, bool(self._readers) and fresh_to_come)
        hungry_limit = self.depth if self._hungry and self._uplink.idle else 0
        promises: list[Promise] = []
        misses = 0
        while misses < len(self._turns):
            pool, limit = self._pool(now_s)
            if self._owed_chunks >= max(limit, hungry_limit):
                break
            host = self._turns[0]
            self._turns.rotate(-1)
            reader = self._readers[host]
            want = _lacking(pool, reader) if self._owed_chunks < limit else 0
            if not want and host in self._hungry and hungry_limit:
                want, limit = self._lacking(reader), hungry_limit
            room = min(self._share - count_of(reader.owed), limit - self._owed_chunks)
            if not want or room <= 0:
                misses += 1
                continue
            misses = 0
            bits = _lowest_run(want, min(room, self._stripe))
            self._promise(host, reader, bits, now_s)
            promises.append(Promise(host, bits))
        self._forget_settled()
        return promises

    def _pool(self, now_s: float) -> tuple[int, int]:
        """What to promise next, and how much may be owed then."""
        if pool := self._fresh or self._stuck:
            return pool, self.depth
        if not self._uplink.idle or now_s < self._help_s:
            return 0, 0
        # All went out once and there is time: help with what fewer than half of the hosts
        # have, the rarest first, a little at a time.
        hosts = len(self._readers) + len(self._rested)
        scarce = without(self._held, self._tally.at_least(max(2, hosts // 2)))
        return self._tally.fewest(scarce), max(2, self.depth // 4)

    def _lacking(self, reader: _Reader) -> int:
        """What to give a hungry reader: what nobody else gets now, the rarest first."""
        lacking = _lacking(self._held, reader)
        return self._tally.fewest(without(lacking, self._owed.any()) or lacking)

    @property
    def _help_s(self) -> float:
        """Until then a reader that came last may still find the others."""
        return self._joined_s + self._to_pass.wait_s

    @property
    def _share(self) -> int:
        """How much one reader may be owed: a slow one does not keep it all."""
        return max(DEPTH_CHUNKS_MIN, -(-2 * self.depth // len(self._turns)))

    @property
    def _stripe(self) -> int:
        return max(1, min(STRIPE_CHUNKS_MAX, self.depth // len(self._turns)))

    def _promise(self, host: HostId, reader: _Reader, bits: int, now_s: float) -> None:
        reader.promised |= bits
        reader.offered |= bits
        self._owed.add(bits)
        self._owed_chunks += count_of(bits)
        self._fresh = without(self._fresh, bits)
        self._stuck = without(self._stuck, bits)
        self._promises.append(_Wait(now_s, host, bits))
        for chunk in indexes(bits):
            self._promised_s[chunk] = now_s

    def _settle(self, reader: _Reader, bits: int) -> None:
        """Nothing is owed of `bits` to this reader any more."""
        promised, asked = bits & reader.promised, bits & reader.asked
        if not promised and not asked:
            return
        reader.promised ^= promised
        reader.asked ^= asked
        self._owed.remove(promised | asked)
        self._owed_chunks -= count_of(promised) + count_of(asked)
        self._asked_chunks -= count_of(asked)

    def _give_back(self, bits: int) -> None:
        """What nobody else has or is owed is to be promised anew."""
        bits = without(bits & self._held, self._tally.counted(bits))
        self._single = without(self._single, bits)
        self._stuck = without(self._stuck, bits)
        for chunk in indexes(bits):
            self._given_to.pop(chunk, None)
        if bits:
            for reader in self._readers.values():
                bits = without(bits, reader.owed)
        self._fresh |= bits

    def validate(self) -> None:
        """Assert what the comments of fields say, after `refill`; costs O(readers and chunks)."""
        assert sorted(self._turns) == sorted(self._readers)
        assert self._hungry <= self._readers.keys()
        assert not self._readers.keys() & self._rested.keys()
        tally, owed, owed_chunks, asked_chunks = Tally(), Tally(), 0, 0
        for reader in (*self._readers.values(), *self._rested.values()):
            tally.add(reader.got)
        for reader in self._readers.values():
            assert not reader.promised & reader.asked
            assert not reader.owed & ~reader.offered, "what is owed was offered"
            owed.add(reader.owed)
            owed_chunks += reader.owed.bit_count()
            asked_chunks += reader.asked.bit_count()
        assert not any(reader.owed for reader in self._rested.values())
        assert (self._tally, self._owed) == (tally, owed)
        assert (self._owed_chunks, self._asked_chunks) == (owed_chunks, asked_chunks)
        had, had_twice = tally.at_least(1), tally.at_least(2)
        assert not (self._fresh | self._stuck | self._single) & ~self._held
        assert not self._fresh & (had | owed.at_least(1)), "nobody has or is owed what is fresh"
        assert not (self._stuck | self._single) & (~had | had_twice), "one host has it"
        assert not self._stuck & self._single
        assert sum(1 << chunk for chunk in self._given_to) == self._single
        assert all(self._of(host) is not None for host, _ in self._given_to.values())

    # --- time -----------------------------------------------------------------------------------

    def _forget_settled(self) -> None:
        """What is waited for no more wakes nobody up."""
        while self._promises and not self._left_of(self._promises[0], asked=False):
            self._promises.popleft()
        while self._requests and not self._left_of(self._requests[0], asked=True):
            self._requests.popleft()
        while self._passings and not self._passings[0].bits & self._single:
            self._passings.popleft()

    def _left_of(self, wait: _Wait, *, asked: bool) -> int:
        reader = self._readers.get(wait.host)
        if reader is None:
            return 0
        return wait.bits & (reader.asked if asked else reader.promised)

    def next_deadline_s(self) -> float | None:
        due_s = math.inf
        if self._promises:
            due_s = self._promises[0].since_s + self._to_ask.wait_s
        if self._requests:
            due_s = min(due_s, self._requests[0].since_s + self._to_send.wait_s)
        if self._passings and len(self._readers) > 1:
            since_s = max(self._passings[0].since_s, self._joined_s)
            due_s = min(due_s, since_s + self._to_pass.wait_s)
        if self._whole and self._readers and self._now_s < (help_s := self._help_s):
            due_s = min(due_s, help_s)
        return None if due_s == math.inf else due_s

    def expire(self, now_s: float) -> None:
        """Give up on what took longer than such things took until now.

        Each is judged by its reader: as long as one asks, takes in or passes on anything, what it
        was promised, asked for or has is not lost, only slow, and a second copy would make all
        slower still.
        """
        overdue = self._overdue(self._promises, self._to_ask, lambda r: r.asked_s, now_s)
        self._write_off(overdue, self._to_ask, asked=False)
        overdue = self._overdue(self._requests, self._to_send, lambda r: r.sent_s, now_s)
        self._write_off(overdue, self._to_send, asked=True)
        if len(self._readers) > 1:  # else there is nobody to pass things on to
            joined_s = self._joined_s  # who came last has to find the others first
            overdue = self._overdue(
                self._passings, self._to_pass, lambda r: max(r.passed_s, joined_s), now_s
            )
            self._stick(overdue)

    def _overdue(
        self,
        waits: deque[_Wait],
        patience: Patience,
        last_s: Callable[[_Reader], float],
        now_s: float,
    ) -> list[_Wait]:
        """Take out the waits in which `last_s` of the reader is too long ago as well."""
        overdue, gone = [], _Reader()
        for _ in range(len(waits)):
            if waits[0].since_s + patience.wait_s > now_s:
                break
            wait = waits.popleft()
            since_s = max(wait.since_s, last_s(self._of(wait.host) or gone))
            if since_s + patience.wait_s > now_s:
                waits.append(wait._replace(since_s=since_s))
            else:
                overdue.append(wait)
        return overdue

    def _write_off(self, overdue: list[_Wait], patience: Patience, *, asked: bool) -> None:
        """Their readers may still ask, and be sent them; but others are promised them, too."""
        vain = False
        for wait in overdue:
            if owed := self._left_of(wait, asked=asked):
                vain = True
                self._settle(self._readers[wait.host], owed)
                self._give_back(owed)
        if vain:
            patience.in_vain()

    def _stick(self, overdue: list[_Wait]) -> None:
        """One host each has these, or says so, and passes nothing on."""
        vain = 0
        for wait in overdue:
            bits = wait.bits & self._single
            vain |= bits
            self._stuck |= bits
            self._single ^= bits
            for chunk in indexes(bits):
                del self._given_to[chunk]
        if vain:
            self._to_pass.in_vain()


def _lacking(bits: int, reader: _Reader) -> int:
    """Those of `bits` that a reader has not and was not promised."""
    return without(without(bits, reader.offered), reader.got)


def _lowest_run(bits: int, count_max: int) -> int:
    """The lowest chunk of `bits` (not 0) and those right after it, `count_max` at most."""
    first = lowest(bits)
    return ((1 << run_length(bits, first, count_max)) - 1) << first
