"""Looks at a blob of a simulated proxy, and wakes whoever waits for something new."""

from __future__ import annotations

from collections.abc import Callable

from bench.sim.clock import Clock, Timer
from bench.sim.hosts import SimHost
from p2pdist.model.ids import Digest
from p2pdist.registry_proxy.core.following import BlobView
from p2pdist.registry_proxy.core.ingest_events import IngestView


class Watch:
    """One wait at a time, until something is new or it is time to look."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timer: Timer | None = None
        self._then: Callable[[], None] | None = None

    def wait(self, until_s: float | None, then: Callable[[], None]) -> None:
        assert until_s is not None, "a core that waits has a deadline"
        assert self._then is None
        self._then = then
        self._timer = self._clock.at(until_s, self._look)

    def wake(self) -> None:
        """Look in the next turn."""
        if self._timer is not None and self._timer.due_s > self._clock.now_s:
            self._timer.cancel()
            self._timer = self._clock.at(self._clock.now_s, self._look)

    def _look(self) -> None:
        then, self._then, self._timer = self._then, None, None
        assert then is not None
        then()


def view_of(host: SimHost, digest: Digest, now_s: float) -> BlobView:
    blob = host.core.blobs[digest]
    held = blob.held
    return BlobView(
        complete=blob.complete,
        failed=blob.failure is not None,
        prefix_chunks=(~held & (held + 1)).bit_length() - 1,
        held_chunks=held.bit_count(),
        idle_s=blob.idle_s(now_s),
    )


def ingest_view_of(host: SimHost, digest: Digest, now_s: float, *, ours: bool) -> IngestView:
    view, mapped = view_of(host, digest, now_s), host.core.blobs[digest].map is not None
    return IngestView(
        view.complete,
        view.failed,
        view.prefix_chunks,
        view.held_chunks,
        view.idle_s,
        mapped=mapped,
        ours=ours,
    )
