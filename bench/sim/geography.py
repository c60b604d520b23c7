"""Where simulated hosts stand: datacenters, the links between them, and their trackers."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.sim.tracker import SimTracker
from bench.sim.wire import Lane, Outage, Route
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.rendezvous import ranked


@dataclass(eq=False)
class Datacenter:
    """`out` and `into` are its link to all others, one way each."""

    name: str
    tracker: SimTracker
    out: Lane
    into: Lane
    outage: Outage = field(default_factory=Outage)
    """Of that link."""
    proxies: list[HostId] = field(default_factory=list)

    def owner(self, digest: Digest) -> HostId | None:
        """The proxy of this datacenter that is to be asked for a blob."""
        return next(iter(self.owners(digest)), None)

    def owners(self, digest: Digest) -> list[HostId]:
        """All of them, the owner first, then those that take over."""
        return [HostId(host) for host in ranked(digest, self.proxies)]


@dataclass(frozen=True, slots=True)
class Latencies:
    """One way, in seconds."""

    near_s: float
    """Within a datacenter."""
    far_s: float

    def between(self, here: Datacenter, there: Datacenter) -> float:
        return self.near_s if here is there else self.far_s


def route(
    here: Datacenter,
    there: Datacenter,
    latencies: Latencies,
    unsent_bytes: float,
    cores: tuple[Lane, ...] = (),
) -> Route:
    """From a host of one to a host of the other; `cores`: where the receiver waits its turn."""
    latency_s = latencies.between(here, there)
    if here is there:
        return Route(latency_s, cores, unsent_bytes=unsent_bytes)
    outages = (here.outage, there.outage)
    return Route(latency_s, (*cores, here.out, there.into), outages, unsent_bytes)
