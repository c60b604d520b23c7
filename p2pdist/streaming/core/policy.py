"""What a host fetches next of the layers that it shows, beside what somebody waits for. Pure.

    rank      what                                        who decides           asked for as
    demand    somebody waits for it                       nobody: it is fetched  demand
    ahead     it comes next in a file that is read on in  AheadPolicy            demand
    expected  starts on other hosts read it (a trace)     AheadPolicy            demand
    fill      all the rest                                FillPolicy             fill

Who reads fetches what it reads itself and waits for no place here; the policy hears of it, so that
nothing is fetched ahead that is read already. There are two policies because there are two
processes: the one that reads outlives the snapshotter, and neither waits for the other. Between
them the mirror keeps the ranks: what it is asked for as demand it fetches before all that it is
asked to fill (`swarm/core/wanting.py`).

Events go in with the time, orders come out; each `Open`, `Bring` and `Fill` is answered once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

if TYPE_CHECKING:
    from p2pdist.model.ids import Digest
    from p2pdist.streaming.core.index import LayerIndex

AHEAD_SPANS: Final = 3
"""Of a file that is read on in: of 0.35 MB each, enough to hide a round trip at 1 Gbit/s."""
AHEAD_AT_ONCE: Final = 4
"""Of all layers: one reader's three, and one of another's."""
EXPECTED_AT_ONCE: Final = 1
"""Of all layers. Four took so much of two cores from the container that it started 0.2 s later than
without any (`make bench-lazy`, 50 MB/s without delay); one costs nothing there."""
EXPECTED_BYTES: Final = 64 << 20
"""Of spans that are open before anybody asks: a start that reads 160 MiB is followed closely. What
is expected beyond that the mirror brings, and nobody opens it."""
EXPECTED_S: Final = 60.0
"""How long those wait for their reader: an image may be pulled and never run."""
TRACE_UNIT_BYTES: Final = 1 << 20
"""Of the archive: what traces count in."""

FILLS_AT_ONCE: Final = 1
"""Questions to the mirror, which answers in a moment: it takes an order, and decides itself which
layer comes first."""
FILL_AGAIN_S: Final = 1.0
FILL_AGAIN_MAX_S: Final = 30.0
"""When the mirror is asked again, twice as long each time: it says when all is there, and may have
been restarted."""


class Why(enum.IntEnum):
    """Why bytes of a layer are fetched; the first goes before the last."""

    DEMAND = 0
    """Somebody waits for them."""
    AHEAD = 1
    """They come next in a file that somebody reads on in."""
    EXPECTED = 2
    """Starts on other hosts read them."""


SpanKey = tuple[int, int]
"""The number of a layer, which no other one ever has, and that of a span in it."""
Expected = tuple[int, int]
"""The number of a span, and how many bytes it has once it is open."""


def expected_spans(index: LayerIndex, units: Sequence[int]) -> list[Expected]:
    """The spans that hold what a trace names, each once, in the order in which it names them; what
    lies behind the archive is left out."""
    numbers = dict[int, None]()
    for unit in units:
        if 0 <= unit * TRACE_UNIT_BYTES < index.diff_bytes:
            first = index.span_at(unit * TRACE_UNIT_BYTES)
            last = index.span_at(min((unit + 1) * TRACE_UNIT_BYTES, index.diff_bytes) - 1)
            numbers |= dict.fromkeys(range(first, last + 1))
    return [(number, index.span_end(number) - index.spans[number].out_offset) for number in numbers]


# --- ahead of readers: in the process that reads --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """Order: fetch a span and open it. AHEAD: it is kept as what was read is; EXPECTED: in a place
    of its own, until somebody reads it or it is dropped."""

    layer: int
    span: int
    why: Why
    nbytes: int = 0
    """Of EXPECTED_BYTES."""


@dataclass(frozen=True, slots=True)
class Bring:
    """Order: have the mirror bring a span; there is no room for it here."""

    layer: int
    span: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Order: an expected span that was opened is not read; it may be gone already."""

    layer: int
    span: int


AheadOrder = Open | Bring | Drop


@dataclass(frozen=True, slots=True)
class Shown:
    """A layer can be read; what starts elsewhere read of it."""

    layer: int
    expected: Sequence[Expected] = ()


@dataclass(slots=True)
class Read:
    """Somebody is about to read a span, and fetches it if it is not here; `file_last`: the last
    span of the file."""

    layer: int
    span: int
    file_last: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An order is over. `unread`: it was EXPECTED, is open, and was not here before. What failed is
    left to who reads it: the patience of a read is spent on it already (`mirror_ranges`)."""

    order: Open | Bring
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """A layer is shown no more."""

    layer: int


AheadEvent = Shown | Read | Ended | Gone


@dataclass(slots=True)
class _Place:
    """Where a layer is read."""

    last: int = -1
    """The span that was read last."""
    ahead: int = -1
    """Up to which spans were ordered since somebody reads on there."""


class AheadPolicy:
    """Of all layers that one process reads."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._next: dict[SpanKey, None] = {}
        """That wait for their turn, oldest first."""
        self._expected: dict[SpanKey, int] = {}
        """The same, as traces have them, layer after layer; their bytes."""
        self._under_way: dict[SpanKey, Open | Bring] = {}
        self._read_meanwhile: set[SpanKey] = set()
        """Of those: whoever asked has it when it comes."""
        self._unread: dict[SpanKey, tuple[int, float]] = {}
        """Expected and open: their bytes, and when they are dropped; soonest first."""
        self._expected_bytes = 0
        """Of what is unread, and of what is being opened to be."""

    def handle(self, event: AheadEvent, now_s: float) -> list[AheadOrder]:
        """Take in one event; return what to do now, in its order."""
        orders: list[AheadOrder] = []
        match event:
            case Read():  # by far the most of them
                self._reads(event)
            case Ended():
                self._ended(event, now_s, orders)
            case Shown(layer, expected):
                assert layer not in self._places
                self._places[layer] = _Place()
                self._expected |= {(layer, span): nbytes for span, nbytes in expected}
            case Gone(layer):
                self._gone(layer, orders)
            case _:
                assert_never(event)
        self._plan(orders)
        return orders

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` has something to do, if nothing else happens."""
        return next((until_s for _, until_s in self._unread.values()), None)

    def handle_deadline(self, now_s: float) -> list[AheadOrder]:
        orders: list[AheadOrder] = []
        while self._unread and next(iter(self._unread.values()))[1] <= now_s:
            self._drop(next(iter(self._unread)), orders)
        self._plan(orders)
        return orders

    def validate(self) -> None:
        """Assert what must hold after every event; for tests."""
        waiting = self._next.keys() | self._expected.keys()
        assert len(waiting) == len(self._next) + len(self._expected)
        assert not waiting & (self._under_way.keys() | self._unread.keys())
        assert not self._under_way.keys() & self._unread.keys()
        assert self._read_meanwhile <= self._under_way.keys()
        assert all(layer in self._places for layer, _ in waiting | self._unread.keys())
        ahead, expected = self._places_taken()
        assert ahead <= AHEAD_AT_ONCE
        assert expected <= EXPECTED_AT_ONCE
        assert not self._next or ahead == AHEAD_AT_ONCE, "a place is free, and one waits"
        assert not self._expected or expected == EXPECTED_AT_ONCE, "a place is free, and one waits"
        opening = sum(o.nbytes for o in self._under_way.values() if isinstance(o, Open))
        unread = sum(nbytes for nbytes, _ in self._unread.values())
        assert self._expected_bytes == opening + unread <= EXPECTED_BYTES
        deadlines_s = [until_s for _, until_s in self._unread.values()]
        assert deadlines_s == sorted(deadlines_s)

    def _reads(self, read: Read) -> None:
        place = self._places.get(read.layer)
        if place is None:
            return  # it is gone, and a reader has it still
        key = (read.layer, read.span)
        self._next.pop(key, None)
        self._expected.pop(key, None)
        if key in self._unread:
            self._expected_bytes -= self._unread.pop(key)[0]
        elif key in self._under_way:
            self._read_meanwhile.add(key)
        if read.span == place.last + 1:
            last = min(read.span + AHEAD_SPANS, read.file_last)
            for span in range(max(read.span, place.ahead) + 1, last + 1):
                self._goes_next((read.layer, span))
            place.ahead = max(place.ahead, last)
        elif read.span != place.last:
            place.ahead = -1
        place.last = read.span

    def _goes_next(self, key: SpanKey) -> None:
        if key not in self._under_way and key not in self._unread:
            self._expected.pop(key, None)
            self._next[key] = None

    def _ended(self, ended: Ended, now_s: float, orders: list[AheadOrder]) -> None:
        order = ended.order
        key = (order.layer, order.span)
        assert self._under_way.pop(key) == order
        read = key in self._read_meanwhile
        self._read_meanwhile.discard(key)
        nbytes = order.nbytes if isinstance(order, Open) else 0
        if ended.unread and order.layer not in self._places:
            orders.append(Drop(*key))
        elif ended.unread and not read:
            self._unread[key] = nbytes, now_s + EXPECTED_S
            return
        self._expected_bytes -= nbytes

    def _gone(self, layer: int, orders: list[AheadOrder]) -> None:
        self._places.pop(layer, None)
        for waiting in (self._next, self._expected):
            for key in [key for key in waiting if key[0] == layer]:
                del waiting[key]
        for key in [key for key in self._unread if key[0] == layer]:
            self._drop(key, orders)

    def _drop(self, key: SpanKey, orders: list[AheadOrder]) -> None:
        self._expected_bytes -= self._unread.pop(key)[0]
        orders.append(Drop(*key))

    def _plan(self, orders: list[AheadOrder]) -> None:
        """Give away the places that are free: ahead of readers first."""
        if not self._next and not self._expected:
            return
        ahead, expected = self._places_taken()
        while self._next and ahead < AHEAD_AT_ONCE:
            key = next(iter(self._next))
            del self._next[key]
            self._begin(Open(*key, Why.AHEAD), orders)
            ahead += 1
        while self._expected and expected < EXPECTED_AT_ONCE:
            key = next(iter(self._expected))
            nbytes = self._expected.pop(key)
            if self._expected_bytes + nbytes <= EXPECTED_BYTES:
                self._begin(Open(*key, Why.EXPECTED, nbytes), orders)
            else:
                self._begin(Bring(*key), orders)
            expected += 1

    def _begin(self, order: Open | Bring, orders: list[AheadOrder]) -> None:
        self._under_way[order.layer, order.span] = order
        self._expected_bytes += order.nbytes if isinstance(order, Open) else 0
        orders.append(order)

    def _places_taken(self) -> tuple[int, int]:
        """Of AHEAD_AT_ONCE, and of EXPECTED_AT_ONCE."""
        ahead = sum(
            isinstance(order, Open) and order.why is Why.AHEAD for order in self._under_way.values()
        )
        return ahead, len(self._under_way) - ahead


# --- all the rest: in the snapshotter -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """Order: tell which layers are shown whose bytes are elsewhere (`Lacking`)."""


@dataclass(frozen=True, slots=True)
class Fill:
    """Order: ask the mirror for all of a layer (`Asked`)."""

    layer: Digest


@dataclass(frozen=True, slots=True)
class Held:
    """Order: use the layer as one of which all lies at the mirror, checked by its digest."""

    layer: Digest


FillOrder = Look | Fill | Held


@dataclass(frozen=True, slots=True)
class More:
    """Something is shown that was not, or this begins."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """The answer to `Look`: in the order in which they came to be shown."""

    layers: Sequence[Digest]


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer to `Fill`. Not `held`: it is on its way, or the mirror did not answer."""

    layer: Digest
    held: bool


FillEvent = More | Lacking | Asked


class FillPolicy:
    """Goes through all that is lacking, time and again, until all of it is held: what is shown no
    more is found by looking before each round, and what cannot come keeps nothing else away."""

    def __init__(
        self, *, again_s: float = FILL_AGAIN_S, again_max_s: float = FILL_AGAIN_MAX_S
    ) -> None:
        self.held: set[Digest] = set()
        """Of which the mirror has all, among those that were shown at the last look."""
        self._again_s = again_s
        self._again_max_s = again_max_s
        self._shown: frozenset[Digest] = frozenset()
        self._to_ask: list[Digest] = []
        """In this round, the next one last."""
        self._under_way: set[Digest] = set()
        self._looking = False
        self._more = False
        """Since this round began."""
        self._pause_s = again_s
        self._again_at_s: float | None = None

    def handle(self, event: FillEvent, now_s: float) -> list[FillOrder]:
        """Take in one event; return what to do now, in its order."""
        orders: list[FillOrder] = []
        match event:
            case More():
                self._more = True
            case Lacking(layers):
                assert self._looking
                self._looking = False
                self._shown = frozenset(layers)
                self.held &= self._shown
                lacking = [layer for layer in dict.fromkeys(layers) if layer not in self.held]
                self._to_ask = lacking[::-1]
                self._fill(orders)
            case Asked(layer, held):
                self._under_way.remove(layer)
                if held:
                    self.held.add(layer)
                    orders.append(Held(layer))
                self._fill(orders)
            case _:
                assert_never(event)
        if not (self._looking or self._under_way):
            self._between_rounds(now_s, orders)
        return orders

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` has something to do, if nothing else happens."""
        return self._again_at_s

    def handle_deadline(self, now_s: float) -> list[FillOrder]:
        if self._again_at_s is None or now_s < self._again_at_s:
            return []
        return [self._look()]

    def validate(self) -> None:
        """Assert what must hold after every event; for tests."""
        assert self.held <= self._shown
        assert self._under_way | set(self._to_ask) <= self._shown - self.held
        assert not self._under_way & set(self._to_ask)
        assert len(self._under_way) <= FILLS_AT_ONCE
        assert not self._to_ask or self._under_way, "nobody is asked, and one waits"
        at_work = self._looking or bool(self._under_way)
        assert not (at_work and self._again_at_s is not None)
        assert not self._more or at_work, "nobody looks at what is new"
        assert at_work or self._again_at_s is not None or self.held == self._shown
        assert self._again_s <= self._pause_s <= max(self._again_s, self._again_max_s)

    def _fill(self, orders: list[FillOrder]) -> None:
        while self._to_ask and len(self._under_way) < FILLS_AT_ONCE:
            layer = self._to_ask.pop()
            self._under_way.add(layer)
            orders.append(Fill(layer))

    def _between_rounds(self, now_s: float, orders: list[FillOrder]) -> None:
        if self._more:
            self._more = False
            self._pause_s = self._again_s
            orders.append(self._look())
        elif self.held != self._shown:
            self._again_at_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, self._again_max_s)

    def _look(self) -> Look:
        self._looking, self._again_at_s = True, None
        return Look()
