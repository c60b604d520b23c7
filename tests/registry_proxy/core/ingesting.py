"""An ingest's core driven by hand, which is looked over after every event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core import ingest_events as events
from p2pdist.registry_proxy.core import ingest_orders as orders
from p2pdist.registry_proxy.core.ingest import IngestCore
from p2pdist.registry_proxy.core.ingest_events import IngestView
from p2pdist.registry_proxy.core.ingest_orders import Order

DIGEST = digest_of(b"layer")
FIRST, SECOND = ImageName("one.test", "app"), ImageName("two.test", "app")
CHUNKS = 100
GEOMETRY = geometry_for(CHUNKS * 256 * 1024)
SIZE = GEOMETRY.size_bytes
DOWN = UpstreamError("no answer", reason=ErrorReason.REGISTRY_DOWN)
UNKNOWN = UpstreamError("not there", reason=ErrorReason.UNKNOWN)
EMPTY = IngestView()


def at(chunks: int) -> IngestView:
    """All up to there lies here, under a map."""
    return IngestView(prefix_chunks=chunks, held_chunks=chunks, mapped=True)


class Driven:
    """Time stands still unless a test moves it."""

    def __init__(self, names: Sequence[ImageName] = (FIRST,), *, alone: bool = True) -> None:
        self.core = IngestCore(DIGEST, GEOMETRY, names, Random(1), alone=alone)
        self.now_s = 100.0

    def happens(self, event: events.Event, after_s: float = 0.0) -> list[Order]:
        self.now_s += after_s
        given = self.core.handle(event, self.now_s)
        self.core.validate()
        return given

    def starts(self, view: IngestView = EMPTY) -> list[Order]:
        return self.happens(events.Started(view, lies_here=False))

    def reads(self, view: IngestView = EMPTY) -> None:
        """From the first gap of `view` on."""
        given = self.starts(view)
        if view.prefix_chunks:
            given = self.happens(events.HashedOn(view))
        assert isinstance(given[-1], orders.OpenBody)
        given = self.happens(events.BodyOpened(view, SIZE))
        if given == [orders.Wait()]:
            given = self.happens(events.Looked(view), 1.0)
        assert given == [orders.OpenMap(fresh=not view.mapped)]
        assert self.happens(events.MapOpened(view)) == [orders.ReadBody()]

    def waits(self, view: IngestView = EMPTY) -> list[Order]:
        """Until the pause after a failure is over, in which nothing comes."""
        due_s = self.core.next_deadline_s()
        assert due_s is not None
        self.now_s = max(due_s, self.now_s)
        return self.happens(events.Looked(replace(view, idle_s=3600.0)))
