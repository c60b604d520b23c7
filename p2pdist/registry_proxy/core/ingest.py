"""How one blob is read from its registries: what is asked of whom, and what comes of the answer.

| phase | what it waits for | then |
| --- | --- | --- |
| OFF | Started | SIGNING what lies here, or a try |
| MAPPING | a map to work under | SIGNING, or on with the try or the body |
| SIGNING | what lies here is read, and signed if it has the digest | OVER, or a try |
| WAITING | what others bring, after a failure | OVER, or a try |
| HASHING | the digest over what is here | OPENING the body behind it, or CONCLUDING |
| OPENING | a body from the first gap on | LOOKING_OUT; another size: CLOSING, and the next name |
| LOOKING_OUT | the first chunk of another reader | none: READING; one: CLOSING, then FOLLOWING |
| FOLLOWING | what the other one brings | it is silent: on with the try |
| READING | chunk after chunk | CLOSING, when it ends or what follows is here; on with the try |
| CLOSING | the body is closed | as above |
| CONCLUDING | what is said was taken in | OVER: sealed, or taken back |
| SETTLING | the same, where no try is left | OVER: failed |

A failure ends a try: the next one goes to the next name, after a pause in which others may go on. A
name whose claim is wrong is left out. Where every name refuses for good, nobody is asked again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, assert_never

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.backoff import Backoff
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import DEFINITE
from p2pdist.registry_proxy.core import ingest_events as events
from p2pdist.registry_proxy.core import ingest_orders as orders
from p2pdist.registry_proxy.core.following import Following
from p2pdist.registry_proxy.core.ingest_events import IngestView
from p2pdist.registry_proxy.core.ingest_orders import Order

# Fault matrix, section 7: at most 4 tries and 30 s in the background.
TRIES_MAX: Final = 4
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 8.0
# What socket buffers hold of a body that is closed, and so is fetched for nothing, is 2 to 6 MB.
SKIP_BYTES_MIN: Final = 16 << 20
# Two readers of one blob that find the registry again in the same second: how long the one without
# a lease looks out for the other's first chunk (of a link cut for 30 s: 1.49 x of the bytes crossed
# it without this, 1.00 x with it).
GIVE_WAY_S: Final = 1.0


class Phase(enum.Enum):
    OFF = enum.auto()
    MAPPING = enum.auto()
    SIGNING = enum.auto()
    WAITING = enum.auto()
    HASHING = enum.auto()
    OPENING = enum.auto()
    LOOKING_OUT = enum.auto()
    FOLLOWING = enum.auto()
    READING = enum.auto()
    CLOSING = enum.auto()
    CONCLUDING = enum.auto()
    SETTLING = enum.auto()
    OVER = enum.auto()


WITH_BODY: Final = frozenset({Phase.LOOKING_OUT, Phase.READING, Phase.CLOSING})
Next = Callable[[IngestView, float], list[Order]]


class IngestCore:
    """One reading of one blob. Pure: time enters as monotonic `now_s`, and orders are to be carried
    out in the order in which they were given. No orders: go on with what was ordered before, or,
    in `Phase.OVER`, nothing is left to do."""

    def __init__(
        self,
        digest: Digest,
        geometry: Geometry,
        names: Sequence[ImageName],
        rng: Random,
        *,
        alone: bool,
    ) -> None:
        """`names`: repositories that claim this size. `alone`: nobody else reads it from there."""
        self.phase = Phase.OFF
        self._digest = digest
        self._geometry = geometry
        self._names = list(names)
        self._alone = alone
        self._backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S, rng=rng)
        self._why = "no upstream answered"
        self._tries = 0
        """Those that failed."""
        self._told: dict[ImageName, ErrorReason] = {}
        """What came of the last request to each repository, where no body did."""
        self._distrusted = False
        """The map vouches for other bytes than came: it, or that body, is wrong."""
        self._laying = False
        """It is about what lies here."""
        # Of the try that is under way:
        self._name: ImageName | None = None
        self._mapped = False
        self._seen = 0
        """How many chunks the digest has run over."""
        self._hashing_to = 0
        self._first = 0
        """Where the body began."""
        self._held_before = 0
        self._whole_body: ImageName | None = None
        """Who sent all of it in one body."""
        self._following: Following | None = None
        self._look_out_until_s: float | None = None
        self._body = False
        self._closed: Next | None = None
        """What comes after the body is closed."""

    # --- events ---------------------------------------------------------------------------------

    def handle(self, event: events.Event, now_s: float) -> list[Order]:
        match event:
            case events.Started(view=view, lies_here=lies_here):
                self._pass(Phase.OFF)
                return self._started(view, now_s, lies_here=lies_here)
            case events.MapOpened(view=view):
                self._pass(Phase.MAPPING)
                return self._map_opened(view, now_s)
            case events.LaidRead(view=view, matches=matches):
                self._pass(Phase.SIGNING)
                return [orders.SignLaid()] if matches else self._unlaid(view, now_s)
            case events.LaidSigned(view=view):
                self._pass(Phase.SIGNING)
                return self._unlaid(view, now_s)
            case events.HashedOn(view=view):
                self._pass(Phase.HASHING)
                self._seen = self._hashing_to
                return self._go_on(view, now_s)
            case events.BodyOpened(view=view, size_bytes=size_bytes):
                self._pass(Phase.OPENING)
                self._body = True
                return self._body_opened(view, size_bytes, now_s)
            case events.Looked(view=view):
                return self._looked(view, now_s)
            case events.Filled():
                self._pass(Phase.READING)
                return self._filled(event)
            case events.Settled(view=view):
                self._pass(Phase.SETTLING)
                return self._settled(view)
            case events.Concluded(sealed=sealed, matches=matches):
                self._pass(Phase.CONCLUDING)
                return self._concluded(sealed=sealed, matches=matches)
            case _:
                return self._ended(event, now_s)

    def _ended(
        self,
        event: events.BodyLeft
        | events.TooLong
        | events.BodyClosed
        | events.Failed
        | events.DiskFailed,
        now_s: float,
    ) -> list[Order]:
        """A body, in one way or the other."""
        match event:
            case events.BodyLeft(chunk=chunk):
                return self._body_left(chunk)
            case events.TooLong():
                self._pass(Phase.READING)
                return self._refuted(f"{self._digest}: more bytes than claimed", None)
            case events.BodyClosed(view=view):
                self._pass(Phase.CLOSING)
                after, self._closed, self._body = self._closed, None, False
                assert after is not None
                return after(view, now_s)
            case events.Failed(view=view, error=error, differs=differs):
                self._body, self._closed = False, None
                self._distrusted = self._distrusted or differs
                return self._failed(view, error, now_s)
            case events.DiskFailed(view=view):
                self._body, self._closed = False, None
                if self._laying:
                    return self._unlaid(view, now_s)
                return self._over(orders.StopStoring())
            case _:
                assert_never(event)

    def next_deadline_s(self) -> float | None:
        return self._following.due_s if self._following is not None else self._look_out_until_s

    def _pass(self, expected: Phase) -> None:
        assert self.phase is expected, f"{self.phase} where {expected} was to be"

    def _over(self, *last: Order) -> list[Order]:
        self.phase = Phase.OVER
        self._following = self._look_out_until_s = None
        return list(last)

    # --- tries ----------------------------------------------------------------------------------

    def _started(self, view: IngestView, now_s: float, *, lies_here: bool) -> list[Order]:
        joins: list[Order] = [] if self._alone else [orders.Join()]
        if lies_here and not view.over:
            self._laying = True
            return [*joins, *self._open_map(view)]
        return [*joins, *self._try(view, now_s)]

    def _unlaid(self, view: IngestView, now_s: float) -> list[Order]:
        """All was made of what lies here that there was to make of it."""
        self._laying = False
        return self._try(view, now_s)

    def _try(self, view: IngestView, now_s: float) -> list[Order]:
        """Begin one, at the next name; `_wait` before all but the first."""
        if view.over or view.overruled:  # whoever proved another size brings it, or the swarm does
            return self._over()
        if not self._names:
            return self._give_out()
        self._name = self._names[self._tries % len(self._names)]
        self._seen, self._mapped, self._whole_body = 0, False, None
        # A map that is not believed any more takes its chunks with it, and so does one of another
        # size: before anything is counted.
        if self._distrusted or not view.fits:
            return self._open_map(view)
        return self._go_on(view, now_s)

    def _failed(self, view: IngestView, error: UpstreamError, now_s: float) -> list[Order]:
        assert self._name is not None
        self._why = str(error)
        self._tries += 1
        self._told[self._name] = error.reason
        said = orders.SayInterrupted(error)
        if self._refusal(view) is not None:
            return [said, *self._give_out()]
        return [said, *self._next_try(view, now_s)]

    def _next_try(self, view: IngestView, now_s: float) -> list[Order]:
        if not self._names or self._tries >= TRIES_MAX or view.failed:
            return self._give_out()
        if not self._tries:
            return self._try(view, now_s)
        # Another proxy may have taken over meanwhile: as long as it brings some, wait.
        self.phase = Phase.WAITING
        self._following = Following(self._backoff.next_delay_s(), now_s)
        return [orders.Join(), orders.Wait()]

    def _refuted(self, why: str, actual_bytes: int | None) -> list[Order]:
        """Only this name is left out: a size proves nothing about the others."""
        assert self._name is not None
        self._why = why
        self._names.remove(self._name)
        return [orders.Refute(self._name, actual_bytes), *self._close(self._next_try)]

    def _refusal(self, view: IngestView) -> ErrorReason | None:
        """What all repositories say of a blob that nothing came of: asking again will not help."""
        told = {self._told.get(name) for name in self._names}
        if view.prefix_chunks or len(told) != 1:
            return None
        reason = told.pop()
        return reason if reason in DEFINITE else None

    def _give_out(self) -> list[Order]:
        self.phase = Phase.SETTLING
        return [orders.Settle()]

    def _settled(self, view: IngestView) -> list[Order]:
        """Our own map of a size that was refuted is taken back. Another proxy's is not: the
        registry that it reads may be right."""
        if view.complete:  # others brought it in the meantime
            return self._over()
        if view.ours and not self._names:
            return self._over(orders.TakeBack())
        if view.failed:
            return self._over()
        why = f"upstream gave out: {self._why}"
        return self._over(orders.FailBlob(why, self._refusal(view)))

    # --- from gap to gap ------------------------------------------------------------------------

    def _go_on(self, view: IngestView, now_s: float) -> list[Order]:
        """A body for each gap, until there is none."""
        if view.failed or view.overruled:
            return self._over()
        if view.complete:
            return self._over(*self._delivered())
        if not view.fits:
            text = f"{self._digest} was taken up with another size meanwhile"
            return self._failed(view, UpstreamError(text), now_s)
        if view.prefix_chunks < self._seen:  # some of it rotted: what comes again is not hashed on
            self._seen, self._whole_body = 0, None
        if view.prefix_chunks > self._seen:
            self.phase, self._hashing_to = Phase.HASHING, view.prefix_chunks
            return [orders.HashOn(self._seen, view.prefix_chunks)]
        if self._seen < self._geometry.chunk_count:
            assert self._name is not None
            self.phase = Phase.OPENING
            self._first, self._held_before = self._seen, view.held_chunks
            return [orders.OpenBody(self._name, self._seen)]
        if not self._mapped:
            return self._open_map(view)
        self.phase = Phase.CONCLUDING
        return [orders.Conclude()]

    def _open_map(self, view: IngestView) -> list[Order]:
        """To work under: the one that is there, whoever of us opened it and however long ago, or a
        new one."""
        self.phase = Phase.MAPPING
        fresh = self._distrusted or not view.mapped or not view.fits
        self._distrusted = False
        return [orders.OpenMap(fresh)]

    def _map_opened(self, view: IngestView, now_s: float) -> list[Order]:
        self._mapped = True
        if self._laying:
            self.phase = Phase.SIGNING
            return [orders.ReadLaid()]
        if not self._body:
            return self._go_on(view, now_s)
        if view.over or not view.fits:
            return self._close(self._go_on)
        self.phase = Phase.READING
        return [orders.ReadBody()]

    # --- one body -------------------------------------------------------------------------------

    def _body_opened(self, view: IngestView, size_bytes: int | None, now_s: float) -> list[Order]:
        claimed_bytes = self._geometry.size_bytes
        if size_bytes not in (None, claimed_bytes):
            text = f"{self._digest} has {size_bytes} bytes in {self._name}, which claims "
            return self._refuted(f"{text}{claimed_bytes}", size_bytes)
        self.phase = Phase.LOOKING_OUT
        self._look_out_until_s = now_s + (0.0 if self._alone else GIVE_WAY_S)
        return self._look_out(view, now_s)

    def _looked(self, view: IngestView, now_s: float) -> list[Order]:
        if self.phase is Phase.LOOKING_OUT:
            return self._look_out(view, now_s)
        assert self._following is not None
        if (over := self._following.look(view, now_s)) is None:
            return [orders.Wait()]
        self._following = None
        if self.phase is Phase.WAITING:
            return self._try(view, now_s)
        return self._over() if over else self._go_on(view, now_s)

    def _look_out(self, view: IngestView, now_s: float) -> list[Order]:
        """After an outage of the registry everybody gets through in the same second: the holder of
        the leases goes ahead unless chunks came already, all others look out for its first ones."""
        assert self._look_out_until_s is not None
        if view.over:
            return self._close(self._go_on)
        if view.held_chunks != self._held_before:
            return self._close(self._give_way)
        if now_s < self._look_out_until_s:
            return [orders.Wait()]
        self._look_out_until_s = None
        if not self._mapped:
            return self._open_map(view)
        self.phase = Phase.READING
        return [orders.ReadBody()]

    def _give_way(self, view: IngestView, now_s: float) -> list[Order]:
        self.phase = Phase.FOLLOWING
        self._following = Following(GIVE_WAY_S, now_s)
        return self._looked(view, now_s)

    def _filled(self, event: events.Filled) -> list[Order]:
        if event.failed or not event.at_its_pace or self._worth_skipping(event):
            self.phase = Phase.CLOSING
            return [orders.LeaveBody()]
        return []

    def _worth_skipping(self, event: events.Filled) -> bool:
        """What follows is here already, and long enough that a new request costs less."""
        skipped = event.here_until - event.chunk
        to_the_end = event.here_until == self._geometry.chunk_count
        enough = skipped * self._geometry.chunk_size_bytes >= SKIP_BYTES_MIN
        return skipped > 0 and (to_the_end or enough)

    def _body_left(self, chunk: int) -> list[Order]:
        assert self.phase in (Phase.READING, Phase.CLOSING)
        if self.phase is Phase.READING and chunk != self._geometry.chunk_count:
            error = UpstreamError(f"{self._digest}: the body ended at chunk {chunk}")
            return self._close(lambda view, now_s: self._failed(view, error, now_s))
        self._seen = chunk
        if self._first == 0 and chunk == self._geometry.chunk_count:
            self._whole_body = self._name
        return self._close(self._go_on)

    def _close(self, after: Next) -> list[Order]:
        self.phase, self._closed = Phase.CLOSING, after
        self._look_out_until_s = None
        return [orders.CloseBody()]

    # --- the end --------------------------------------------------------------------------------

    def _concluded(self, *, sealed: bool, matches: bool) -> list[Order]:
        """Seal what has its digest; take back what has not."""
        if sealed:
            return self._over(*self._delivered())
        if matches:
            return self._over(orders.Seal(), *self._delivered())
        assert self._name is not None
        return self._over(orders.Disprove(self._name))

    def _delivered(self) -> list[Order]:
        return [orders.Delivered(self._whole_body)] if self._whole_body is not None else []

    def validate(self) -> None:
        assert 0 <= self._seen <= self._geometry.chunk_count
        assert 0 <= self._tries <= TRIES_MAX
        may_end = self._laying or self.phase in (Phase.CLOSING, Phase.SETTLING, Phase.OVER)
        assert (self._names and self._tries < TRIES_MAX) or may_end
        waits = self.phase in (Phase.WAITING, Phase.FOLLOWING)
        assert (self._following is not None) == waits
        assert (self._look_out_until_s is not None) == (self.phase is Phase.LOOKING_OUT)
        assert self._body == (self.phase in WITH_BODY) or self.phase is Phase.MAPPING
        assert self._closed is None or self.phase is Phase.CLOSING
        if self.phase is Phase.READING:
            assert self._mapped, "what is read is signed under a map"
            assert self._name in self._names
        if self.phase is Phase.SIGNING:
            assert self._laying
