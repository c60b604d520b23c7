"""Hosts around a tracker core in virtual time: they do as ordered, unless told to misbehave."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

from p2pdist.model.control import (
    Announce,
    Delta,
    Describe,
    FromTracker,
    Prewarm,
    PrewarmEnd,
    PrewarmReport,
    Proof,
    Prove,
    Status,
    SwarmKey,
    ToTracker,
    tag_swarm_key,
)
from p2pdist.model.ids import tag_key
from p2pdist.model.jobs import Blob, HostState, JobImage, JobSpec, JobState, PlatformImage
from p2pdist.model.members import Role
from p2pdist.model.statements import Keyring
from p2pdist.tracker.core.jobs.choosing import choose_hosts
from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.planning import Planner
from p2pdist.tracker.core.jobs.records import StoredJob, StoredTarget
from p2pdist.tracker.core.jobs.target import Target
from p2pdist.tracker.core.orders import Close, Send, SendMany
from p2pdist.tracker.core.selector import parse_selector
from p2pdist.tracker.core.state import (
    HostConnected,
    HostDisconnected,
    MessageReceived,
    Order,
    TrackerCore,
)
from tests.tracker.hosts import key, member

LATENCY_S = 0.01
HEARTBEAT_S = 10.0
LAYER_BYTES = 100 << 20
UNIX_S = 1_800_000_000.0
BLOBS = ("config", "layer one", "layer two")
TAG = tag_swarm_key(tag_key("registry.test", "web", "v1"))


def image(platforms: tuple[str, ...] = ("linux/amd64",)) -> JobImage:
    """Three blobs for each platform, of which two are layers."""
    return JobImage(
        "registry.test",
        "web",
        "v1",
        key("index"),
        [
            PlatformImage(
                platform,
                [key("index"), key(f"manifest {platform}")],
                [
                    Blob(key(f"{platform} {name}"), 1000 if name == "config" else LAYER_BYTES)
                    for name in BLOBS
                ],
            )
            for platform in platforms
        ],
    )


def blob(name: str, platform: str = "linux/amd64") -> SwarmKey:
    return key(f"{platform} {name}")


class FleetHost:
    def __init__(self, fleet: Fleet, number: int, place: str, role: Role, about: Describe) -> None:
        self.fleet, self.number, self.place, self.role, self.about = (
            fleet, number, place, role, about
        )  # fmt: skip
        self.link = 0
        self.held: set[SwarmKey] = set()
        self.orders: list[Prewarm] = []
        self.ended: list[PrewarmEnd] = []
        self.fetch_s = 1.0
        self.fails: tuple[str, str] | None = None
        """Code and reason of what it reports instead of fetching."""
        self.lies = False
        self.mute = False
        self.unpacks = True
        self.conceals: set[SwarmKey] = set()
        """What it does not announce after its next fetch."""

    @property
    def id(self) -> str:
        return f"{self.number:032x}"

    def tell(self, message: ToTracker) -> None:
        link = self.link
        self.fleet.later(LATENCY_S, lambda: self.fleet.feed(MessageReceived(link, message)))

    def connect(self) -> None:
        self.link = next(self.fleet.links)
        self.fleet.by_link[self.link] = self
        self.fleet.feed(HostConnected(self.link, member(self.number, self.place, self.role)))
        self.tell(self.about)
        self.tell(Announce([Delta(k, 1000, True) for k in sorted(self.held)], full=True))
        self._beat(self.link)

    def _beat(self, link: int) -> None:
        if link == self.link:
            self.tell(Status({}))
            self.fleet.later(HEARTBEAT_S, lambda: self._beat(link))

    def disconnect(self) -> None:
        link, self.link = self.link, 0
        del self.fleet.by_link[link]
        self.fleet.feed(HostDisconnected(link))

    def lose(self, *keys: SwarmKey, silently: bool = False) -> None:
        self.held -= set(keys)
        if not silently:
            self.tell(Announce([Delta(k, 0, False) for k in keys]))

    def take(self, message: FromTracker) -> None:
        match message:
            case Prewarm():
                self.orders.append(message)
                self.fleet.later(self.fetch_s, lambda: self._fetch(message))
            case PrewarmEnd():
                self.ended.append(message)
            case Prove() if not self.mute:
                self.tell(Proof(message.seq, self._hash(message)))
            case _:
                pass

    def _fetch(self, order: Prewarm) -> None:
        if self.fails is not None:
            self.tell(PrewarmReport(order.job, "failed", *self.fails))  # type: ignore[arg-type]  # a code and a reason
            return
        for one in order.images:
            self.held |= {SwarmKey(digest) for digest in one.manifests}
            self.held |= {SwarmKey(ref.digest) for ref in one.blobs}
            if self.role is Role.PEER:
                self.held.add(tag_swarm_key(tag_key(one.upstream, one.repository, one.tag)))
        told = sorted(self.held - self.conceals)
        self.conceals.clear()
        self.tell(Announce([Delta(k, 1000, True) for k in told]))
        self.tell(PrewarmReport(order.job, "fetched"))
        if order.into_runtime and self.unpacks:
            self.tell(PrewarmReport(order.job, "unpacked"))

    def _hash(self, asked: Prove) -> bytes:
        if self.lies:
            return b"some other bytes"
        if not {SwarmKey(part.digest) for part in asked.parts} <= self.held:
            return b""
        return hashlib.sha256(asked.key + repr(asked.parts).encode()).digest()


class Fleet:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.checks = True
        """The books are gone through after every event."""
        self.links = itertools.count(1)
        self.by_link: dict[int, FleetHost] = {}
        self.hosts: list[FleetHost] = []
        self.restart()
        self._serial = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []

    def restart(self) -> None:
        """A new core that knows nothing; nobody is connected."""
        self.by_link.clear()
        now_s, random = self.now_s, Random(1)
        self.core = TrackerCore(
            epoch="one",
            dc="dc1",
            epoch_s=now_s,
            epoch_unix_s=UNIX_S + now_s,
            keyring=Keyring([]),
            rng=random,
            token=random.randbytes,
        )

    # --- time -----------------------------------------------------------------------------------

    def later(self, delay_s: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._serial), work))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while True:
            due_s = self.core.next_deadline_s()
            event_s = self._queue[0][0] if self._queue else None
            first_s = min((s for s in (due_s, event_s) if s is not None), default=end_s)
            if first_s >= end_s:
                self.now_s = end_s
                return
            self.now_s = max(self.now_s, first_s)
            if event_s is not None and event_s <= self.now_s:
                heapq.heappop(self._queue)[2]()
            else:
                self.carry_out(self.core.handle_deadline(self.now_s))

    def feed(self, event: HostConnected | HostDisconnected | MessageReceived) -> None:
        self.carry_out(self.core.handle(event, self.now_s))

    def carry_out(self, orders: list[Order]) -> None:
        for order in orders:
            if isinstance(order, Send):
                self._deliver(order.link, order.message)
            elif isinstance(order, SendMany):
                for link in order.links:
                    self._deliver(link, order.message)
            else:
                assert not isinstance(order, Close), order.reason
        if self.checks:
            self.core.validate()

    def _deliver(self, link: int, message: FromTracker) -> None:
        def arrive() -> None:
            if link in self.by_link:
                self.by_link[link].take(message)

        self.later(LATENCY_S, arrive)

    # --- hosts and jobs -------------------------------------------------------------------------

    def add(
        self,
        place: str = "dc1/r1",
        role: Role = Role.PEER,
        *,
        name: str = "",
        labels: tuple[str, ...] = (),
        platform: str = "linux/amd64",
        runtimes: tuple[str, ...] = (),
        mirror: bool = False,
    ) -> FleetHost:
        number = len(self.hosts) + 1
        about = Describe(name or f"host-{number}", list(labels), platform, list(runtimes), mirror)
        host = FleetHost(self, number, place, role, about)
        self.hosts.append(host)
        host.connect()
        return host

    def submit(self, spec: JobSpec, job_id: str = "j1") -> Job:
        book = self.core.jobs
        chosen = choose_hosts(job_id, spec, parse_selector(spec.hosts), book.candidates(spec))
        job = book.create(job_id, spec, self.now_s)
        book.enlist(job, chosen, self.now_s)
        book.begin(job, self.now_s)
        self.carry_out([*book.drain()])
        return job

    def planner(self, spec: JobSpec) -> Planner:
        planner = Planner(spec, self.core.hosts, self.core.swarms)
        candidates = self.core.jobs.candidates(spec)
        planner.add(choose_hosts("", spec, parse_selector(spec.hosts), candidates))
        return planner

    def stored(self) -> list[tuple[StoredJob, list[StoredTarget]]]:
        """What a store would hold if it had been written to all along."""
        return [
            (self.core.jobs.stored(job), [job.stored_target(t) for t in job.targets.values()])
            for job in self.core.jobs.jobs.values()
        ]


def state_of(job: Job) -> JobState:
    """The state now: what mypy learns of `job.state` by an assertion, it believes after a run."""
    return job.state


def states(job: Job) -> Counter[HostState]:
    return Counter(target.state for target in job.targets.values())


def check_counts(job: Job, fleet: Fleet) -> None:
    """Compare what is kept up event by event with a recount of everything."""
    for dc, tally in job.tallies.items():
        targets = [t for t in job.targets.values() if t.dc == dc]
        assert tally.hosts == len(targets)
        assert +Counter(tally.counts) == Counter(t.state for t in targets)
        assert tally.missing_bytes == sum(t.missing_bytes for t in targets)
        assert tally.lost_for_good == sum(t.final and t.state == "lost" for t in targets)
    opened = [t for t in job.targets.values() if t.opened]
    assert job.opened == len(opened)
    assert job.opened_good == sum(t.good for t in opened)
    assert job.opened_final == sum(t.final for t in opened)
    assert set(job.failed) == {
        t.host_id for t in job.targets.values() if t.final or t.state == "lost"
    }
    for target in job.targets.values():
        _check_target(target)


def _check_target(target: Target) -> None:
    if target.host is None:
        assert not target.good
        return
    before = target.missing_parts, target.missing_bytes
    target.recount()
    assert (target.missing_parts, target.missing_bytes) == before
    if target.good:
        assert target.whole
        assert target.proven or target.trusted
