"""Whatever registries, other proxies, disks and time do: the digest runs over each chunk once and
in order, nobody is asked for what is here, and the reading ends.

A state machine of Hypothesis, which plays the shell and the world: a blob of some chunks that
several may bring, under maps that come and go.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.chunkset import ChunkSet
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core import ingest_events as events
from p2pdist.registry_proxy.core import ingest_orders as orders
from p2pdist.registry_proxy.core.ingest import (
    GIVE_WAY_S,
    RETRY_MAX_S,
    TRIES_MAX,
    IngestCore,
    Phase,
)
from p2pdist.registry_proxy.core.ingest_events import IngestView
from tests.registry_proxy.core.ingesting import CHUNKS, DIGEST, FIRST, GEOMETRY, SECOND, SIZE

pytestmark = pytest.mark.timeout(360)

THIRD = ImageName("three.test", "app")
REASONS = st.sampled_from([ErrorReason.UNKNOWN, ErrorReason.DENIED, ErrorReason.REGISTRY_DOWN])
TIMES = st.sampled_from([0.0, 0.1, GIVE_WAY_S, 3.0, 20.0])
SEVERAL = st.integers(1, CHUNKS)
RARELY = st.integers(0, 9).map(lambda drawn: drawn == 0)


class IngestMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.came_s = 0.0
        self.here = ChunkSet(CHUNKS, 0)
        self.mapped = self.sealed = self.ours = False
        self.fits = True
        self.failed = self.overruled = False
        self.hashed = 0
        """How many chunks the digest has run over, from the first on."""
        self.at: int | None = None
        """The next chunk of the body that is open."""
        self.left = False
        self.names: list[ImageName] = []
        self.failures = 0
        self.last: list[orders.Order] = []
        """Of all that was ordered, what ended it."""
        self.order: orders.Order | None = None
        """What is to be answered."""
        self.core = IngestCore(DIGEST, GEOMETRY, [FIRST], Random(1), alone=True)

    @initialize(names=st.integers(1, 3), alone=st.booleans(), lies_here=st.booleans(), here=SEVERAL)
    def begins(self, names: int, alone: bool, lies_here: bool, here: int) -> None:
        self.names = [FIRST, SECOND, THIRD][:names]
        if here % 3 == 0:
            self.mapped, self.here = True, ChunkSet(CHUNKS, (1 << here) - 1)
        self.core = IngestCore(DIGEST, GEOMETRY, self.names, Random(1), alone=alone)
        self.happens(events.Started(self.view, lies_here))

    @property
    def complete(self) -> bool:
        return self.sealed and self.fits and len(self.here) == CHUNKS

    @property
    def view(self) -> IngestView:
        return IngestView(
            complete=self.complete,
            failed=self.failed,
            prefix_chunks=self.here.first_missing(),
            held_chunks=len(self.here),
            idle_s=self.now_s - self.came_s,
            mapped=self.mapped,
            fits=self.fits,
            overruled=self.overruled,
            ours=self.ours,
        )

    # --- the shell ------------------------------------------------------------------------------

    def happens(self, event: events.Event) -> None:
        over_before = self.core.phase is Phase.OVER
        given = self.core.handle(event, self.now_s)
        self.core.validate()
        assert not over_before
        for order in given:
            self.carry_out(order)
        if given or self.core.phase is Phase.OVER:
            self.order = None if self.core.phase is Phase.OVER else given[-1]
        if self.core.phase is Phase.OVER:
            assert self.at is None, "no body is left open"
            assert self.core.next_deadline_s() is None

    def carry_out(self, order: orders.Order) -> None:
        match order:
            case orders.OpenMap(fresh):
                assert fresh or (self.mapped and self.fits)
                if fresh:
                    self.here, self.sealed = ChunkSet(CHUNKS, 0), False
                    self.ours = self.mapped = self.fits = True
            case orders.HashOn(start, stop):
                assert start in (0, self.hashed), "in order, and nothing twice"
                assert start < stop <= self.here.first_missing()
                self.hashed = start
            case orders.OpenBody(name, chunk):
                assert not self.complete
                assert not self.failed
                assert not self.overruled
                assert name in self.names, "who was refuted is not asked again"
                assert chunk in (0, self.hashed)
                assert chunk not in self.here, "what is here is not asked for"
                assert self.failures < TRIES_MAX
                assert self.at is None
                self.hashed = chunk
            case orders.ReadBody():
                assert self.mapped
                self.left = False
            case orders.LeaveBody():
                self.left = True
            case orders.Refute(name):
                self.names.remove(name)
            case orders.SayInterrupted():
                self.failures += 1
            case orders.Seal():
                assert self.hashed == CHUNKS == len(self.here)
                self.sealed = True
                self.last.append(order)
            case orders.StopStoring():  # also of one that is whole: it may be gone
                self.last.append(order)
            case orders.Disprove() | orders.TakeBack() | orders.FailBlob():
                assert not self.complete
                assert not isinstance(order, orders.FailBlob) or not self.failed
                self.last.append(order)
        assert len(self.last) <= 1, "it ends once"

    @precondition(lambda self: isinstance(self.order, orders.OpenMap))
    @rule()
    def map_is_opened(self) -> None:
        self.happens(events.MapOpened(self.view))

    @precondition(lambda self: isinstance(self.order, orders.ReadLaid))
    @rule(matches=st.booleans())
    def laid_is_read(self, matches: bool) -> None:
        self.happens(events.LaidRead(self.view, matches))

    @precondition(lambda self: isinstance(self.order, orders.SignLaid))
    @rule()
    def laid_is_signed(self) -> None:
        if not self.failed:
            self.here, self.sealed = ChunkSet(CHUNKS, (1 << CHUNKS) - 1), True
        self.happens(events.LaidSigned(self.view))

    @precondition(lambda self: isinstance(self.order, orders.HashOn))
    @rule()
    def is_hashed_on(self) -> None:
        assert isinstance(self.order, orders.HashOn)
        self.hashed = self.order.stop
        self.happens(events.HashedOn(self.view))

    @precondition(lambda self: isinstance(self.order, orders.OpenBody))
    @rule(told=st.sampled_from([SIZE, SIZE, SIZE, None, SIZE - 1]))
    def body_is_opened(self, told: int | None) -> None:
        assert isinstance(self.order, orders.OpenBody)
        self.at = self.order.chunk
        self.happens(events.BodyOpened(self.view, told))

    @precondition(lambda self: isinstance(self.order, orders.ReadBody))
    @rule(count=SEVERAL, at_its_pace=st.integers(0, 9))
    def body_brings(self, count: int, at_its_pace: int) -> None:
        for _ in range(count):
            if self.at is None or self.at == CHUNKS or self.left or not self.fits:
                return
            chunk = self.at + 1
            here_until = self.here.first_missing(chunk) if chunk in self.here else chunk
            self.here.add(self.at)
            self.at = self.hashed = chunk
            self.came_s = self.now_s
            pace = at_its_pace > 0
            self.happens(events.Filled(chunk, here_until, pace, failed=self.failed))

    @precondition(lambda self: isinstance(self.order, orders.ReadBody | orders.LeaveBody))
    @rule()
    def body_ends(self) -> None:
        assert self.at is not None
        self.happens(events.BodyLeft(self.at))

    @precondition(lambda self: isinstance(self.order, orders.ReadBody) and self.at == CHUNKS)
    @rule(really=RARELY)
    def body_goes_on(self, really: bool) -> None:
        if really:
            self.happens(events.TooLong())

    @precondition(lambda self: isinstance(self.order, orders.CloseBody))
    @rule()
    def body_is_closed(self) -> None:
        self.at = None
        self.happens(events.BodyClosed(self.view))

    @precondition(lambda self: isinstance(self.order, orders.Wait))
    @rule()
    def is_woken(self) -> None:
        """For a reason or for none."""
        self.happens(events.Looked(self.view))

    @precondition(lambda self: isinstance(self.order, orders.Conclude))
    @rule(matches=st.booleans())
    def is_concluded(self, matches: bool) -> None:
        self.happens(events.Concluded(sealed=self.sealed, matches=matches or self.sealed))

    @precondition(lambda self: isinstance(self.order, orders.Settle))
    @rule()
    def is_settled(self) -> None:
        self.happens(events.Settled(self.view))

    # --- what goes wrong ------------------------------------------------------------------------

    @precondition(lambda self: isinstance(self.order, orders.OpenBody | orders.ReadBody))
    @rule(reason=REASONS, differs=RARELY)
    def registry_fails(self, reason: ErrorReason, differs: bool) -> None:
        differs = differs and self.at is not None
        self.at = None
        self.happens(events.Failed(self.view, UpstreamError("gone", reason=reason), differs))

    @precondition(lambda self: self.order is not None and not isinstance(self.order, orders.Wait))
    @rule(really=RARELY)
    def disk_fails(self, really: bool) -> None:
        if really:
            self.at = None
            self.happens(events.DiskFailed(self.view))

    @precondition(lambda self: self.order is not None)
    @rule(really=RARELY, what=st.sampled_from(["failed", "whole", "another size", "proven"]))
    def is_done_by_others(self, really: bool, what: str) -> None:
        if not really or self.overruled:
            return
        match what:
            case "failed":
                self.failed = True
            case "whole" if self.fits:
                self.mapped = self.sealed = True
                self.here = ChunkSet(CHUNKS, (1 << CHUNKS) - 1)
            case "another size" | "proven" if not self.complete:
                self.mapped, self.fits, self.ours = True, False, False
                self.here = ChunkSet(CHUNKS, 0)
                self.overruled = what == "proven"

    # --- other proxies --------------------------------------------------------------------------

    @precondition(lambda self: self.mapped and self.fits)
    @rule(chunk=st.integers(0, CHUNKS - 1), count=SEVERAL)
    def others_bring(self, chunk: int, count: int) -> None:
        for brought in range(chunk, min(CHUNKS, chunk + count)):
            self.here.add(brought)
        self.came_s = self.now_s

    @precondition(lambda self: self.here and not self.sealed)
    @rule(really=RARELY, chunk=st.integers(0, CHUNKS - 1))
    def chunk_rots(self, really: bool, chunk: int) -> None:
        """While nothing is done with it: who reads one that rotted hears of it as a failed disk."""
        if really and isinstance(self.order, orders.Wait | orders.ReadBody | orders.CloseBody):
            self.here.discard(chunk)

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while isinstance(self.order, orders.Wait):
            next_s = self.core.next_deadline_s()
            assert next_s is not None
            if next_s > end_s:
                break
            self.now_s = max(self.now_s, next_s)
            self.happens(events.Looked(self.view))
            next_s = self.core.next_deadline_s()
            assert next_s is None or next_s > self.now_s, "what is due was done"
        self.now_s = max(self.now_s, end_s)

    @invariant()
    def whoever_waits_has_a_deadline(self) -> None:
        next_s = self.core.next_deadline_s()
        assert (next_s is not None) == isinstance(self.order, orders.Wait)
        assert next_s is None or next_s <= self.now_s + RETRY_MAX_S

    def teardown(self) -> None:
        """From here on the registry has the blob and sends it, and all others are still."""
        for _ in range(200):
            if self.core.phase in (Phase.OVER, Phase.OFF):
                return
            match self.order:
                case orders.OpenMap():
                    self.map_is_opened()
                case orders.ReadLaid():
                    self.laid_is_read(False)
                case orders.SignLaid():
                    self.laid_is_signed()
                case orders.HashOn():
                    self.is_hashed_on()
                case orders.OpenBody():
                    self.body_is_opened(SIZE)
                case orders.ReadBody():
                    self.body_brings(CHUNKS, 1)
                    if not self.fits:
                        self.registry_fails(ErrorReason.REGISTRY_ERROR, False)
                    elif isinstance(self.order, orders.ReadBody) and self.at == CHUNKS:
                        self.body_ends()
                case orders.LeaveBody():
                    self.body_ends()
                case orders.CloseBody():
                    self.body_is_closed()
                case orders.Wait():
                    self.time_passes(20.0)
                case orders.Conclude():
                    self.is_concluded(True)
                case orders.Settle():
                    self.is_settled()
        raise AssertionError(f"it does not end: {self.core.phase}")


TestIngestMachine = IngestMachine.TestCase
TestIngestMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
