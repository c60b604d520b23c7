"""One host of one job, and the counts over the hosts of one datacenter."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from typing import Final

from p2pdist.model.control import Delta, SwarmKey
from p2pdist.model.jobs import HostState, HostStatus
from p2pdist.tracker.core.jobs.parts import Parts
from p2pdist.tracker.core.swarms import Host

# Samples of the bytes received, one a second: the rate is the mean over these.
RATE_SAMPLES: Final = 11


class Tally:
    """Counts over the hosts of one datacenter, kept up event by event."""

    __slots__ = (
        "_samples",
        "counts",
        "hosts",
        "lost_for_good",
        "missing_bytes",
        "received_bytes",
        "total_bytes",
    )

    def __init__(self) -> None:
        self.hosts = 0
        self.counts: dict[HostState, int] = {}
        self.lost_for_good = 0
        """Of those that are lost, how many failed by that."""
        self.total_bytes = 0
        self.missing_bytes = 0
        self.received_bytes = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)

    def move(self, before: HostState | None, after: HostState) -> None:
        if before is not None:
            self.counts[before] -= 1
        self.counts[after] = self.counts.get(after, 0) + 1

    def sample(self, now_s: float) -> None:
        self._samples.append((now_s, self.received_bytes))

    @property
    def rate(self) -> float:
        """Bytes a second over the last samples."""
        if len(self._samples) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    @property
    def eta_s(self) -> float | None:
        if not self.missing_bytes:
            return 0.0
        return self.missing_bytes / self.rate if self.rate > 0 else None

    def validate(self, hosts: Collection[Target]) -> None:
        """Assert that it counts these, the hosts of its datacenter; for tests and simulations."""
        assert self.hosts == len(hosts)
        assert min(self.counts.values(), default=0) >= 0
        assert +Counter(self.counts) == Counter(host.state for host in hosts)
        assert self.lost_for_good == sum(host.lost_for_good for host in hosts)
        assert self.total_bytes == sum(host.parts.total_bytes for host in hosts if host.parts)
        assert self.missing_bytes == sum(host.missing_bytes for host in hosts)
        assert 0 <= self.missing_bytes <= self.total_bytes


class Target:
    """What a job knows of one host. `proven`: it passed a proof asked after all of it was there."""

    __slots__ = (
        "asked",
        "brings",
        "code",
        "dc",
        "final",
        "good",
        "host",
        "host_id",
        "lost_for_good",
        "lost_s",
        "missing_bytes",
        "missing_parts",
        "name",
        "opened",
        "parts",
        "platform",
        "proven",
        "proxy",
        "queued",
        "reason",
        "retrying",
        "runtime_missing",
        "state",
        "tries",
        "trusted",
        "unpacked",
        "wave",
    )

    def __init__(self, host_id: str, name: str, dc: str, platform: str, wave: int) -> None:
        self.host_id = host_id
        self.name = name
        self.dc = dc
        self.platform = platform
        self.wave = wave
        """Index of the wave that it belongs to."""
        self.proxy = False
        """Goes along with the hosts of its datacenter, and is not counted among them."""
        self.trusted = False
        """A proxy: what it announces needs no proof."""
        self.parts: Parts | None = None
        """What it is ready with. None: no image of the job has anything for it."""
        self.brings: Parts | None = None
        """Of a proxy: what it is ordered to have, for all hosts of its datacenter."""
        self.host: Host | None = None
        """None: no connection."""
        self.lost_s = 0.0
        """Since when it has no connection."""
        self.missing_parts = 0
        self.missing_bytes = 0
        self.opened = False
        self.asked = 0
        """`seq` of the last proof that was asked since it holds everything; 0: none was."""
        self.proven = False
        self.queued = False
        """Waits for its next proof."""
        self.unpacked = False
        self.runtime_missing = False
        """The job wants it in a runtime, and the host lets us into none."""
        self.tries = 0
        self.retrying = False
        """It will be ordered again in a while: what fails until then is the same failure."""
        self.final = False
        """Failed, and not ordered again by itself."""
        self.lost_for_good = False
        """Final, and without a connection: counted with those that failed."""
        self.code = ""
        self.reason = ""
        self.state: HostState = "lost"
        self.good = False

    @property
    def whole(self) -> bool:
        return self.host is not None and self.parts is not None and not self.missing_parts

    def recount(self) -> int:
        """Look all parts up anew, O(parts); return how many missing bytes were added."""
        before = self.missing_bytes
        self.missing_parts, self.missing_bytes = self._lacking()
        return self.missing_bytes - before

    def _lacking(self) -> tuple[int, int]:
        """Return how many parts it lacks, and bytes of them."""
        missing_parts = missing_bytes = 0
        entries = self.host.entries if self.host is not None else {}
        for key, size in self.parts.sizes.items() if self.parts is not None else ():
            entry = entries.get(key)
            if entry is None:
                missing_bytes += size
                missing_parts += 1
                continue
            assert self.parts is not None
            missing_bytes += size - self.parts.held_bytes(key, entry.held_chunks, entry.complete)
            missing_parts += not entry.complete
        return missing_parts, missing_bytes

    def changed(self, key: SwarmKey, before: tuple[int, bool], after: Delta) -> int:
        """Take in what the host now holds of one part, O(1); return the bytes it has more."""
        assert self.parts is not None
        more = self.parts.held_bytes(key, after.held_chunks, after.complete)
        more -= self.parts.held_bytes(key, *before)
        self.missing_bytes -= more
        self.missing_parts += before[1] - after.complete
        return more

    def derive(self, *, into_runtime: bool) -> tuple[HostState, bool]:
        """Return the state that follows from all else, and whether it is what the job is after."""
        if self.host is None:
            return "lost", False
        trusted = self.whole and (self.proven or self.trusted)
        if trusted and self.unpacked and into_runtime:
            return "unpacked", True
        if trusted and not into_runtime:
            return "ready", True
        if self.final:
            return "failed", False
        if trusted:
            return "ready", False
        return ("fetching" if self.opened else "waiting"), False

    def validate(self, *, into_runtime: bool) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert (self.state, self.good) == self.derive(into_runtime=into_runtime)
        if self.host is not None:
            assert (self.missing_parts, self.missing_bytes) == self._lacking()
        assert self.whole or not self.proven
        assert self.whole or not self.asked, "what was asked before a loss proves nothing"
        assert self.whole or not self.good
        assert not (self.good and (self.final or self.code or self.reason))
        assert self.code or not self.final
        assert self.tries or not self.retrying
        if self.proxy:
            assert self.trusted
            assert self.opened
            assert self.brings is not None
            assert self.parts is self.brings
        else:
            assert self.lost_for_good is (self.final and self.state == "lost")

    def status(self) -> HostStatus:
        return HostStatus(
            self.host_id,
            self.name,
            self.dc,
            self.state,
            self.missing_bytes,
            self.code,
            self.reason,
            self.tries,
        )
