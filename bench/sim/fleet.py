"""Datacenters under simulation: seeds, hosts that pull, and what becomes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from bench.sim.clock import Clock
from bench.sim.content import Content, SimBlob
from bench.sim.geography import Datacenter, Latencies, route
from bench.sim.hosts import CHUNK_S_PER_BYTE, Costs, SimHost
from bench.sim.lines import CONNECT_S
from bench.sim.obtaining import Obtaining
from bench.sim.scenario import Scenario, Wave
from bench.sim.searching import Search
from bench.sim.tracker import SimTracker
from bench.sim.upstream import Upstream
from bench.sim.wire import UNSENT_BYTES, Card, End, Lane, Route
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Place, Role

MBIT: Final = 1e6 / 8
# As `exchange/link.py` has it.
SILENT_S: Final = 30.0


@dataclass(eq=False)
class Pull:
    """One host gets the image: its layers in order, some at once."""

    host: SimHost
    begin_s: float
    wave: Wave
    healthy: bool = True
    end_s: float | None = None
    stalled_s: float = 0.0
    """Longest wait of an in-order reader after its first byte."""
    _left: list[SimBlob] = field(default_factory=list)
    _readers: dict[Digest, _Reader] = field(default_factory=dict)

    @property
    def took_s(self) -> float | None:
        return None if self.end_s is None else self.end_s - self.begin_s


@dataclass(eq=False, slots=True)
class _Reader:
    number: int
    search: Search
    at: int = 0
    free_s: float = 0.0
    """When it may read on, where it reads at a rate."""
    waits_since_s: float | None = None


class Fleet:
    """Makes the hosts of a scenario and lets them pull. One seed, one course of events."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        costs: Costs | None = None,
        checks: bool = False,
        write: Callable[[bytes], object] | None = None,
    ) -> None:
        """`checks`: each core is held to its invariants after every event; `write` takes the lines
        of all hosts' traces."""
        self._checks = checks
        self._write = write
        self.clock = Clock()
        self.content = Content()
        self.scenario = scenario
        self.pulls: list[Pull] = []
        self.trace = hashlib.blake2b(digest_size=16)
        """Of all ends of pulls and layers, in their order."""
        self._rng = Random(f"fleet {seed}")
        self._seed = seed
        self._costs = costs or Costs(chunk_s_per_byte=CHUNK_S_PER_BYTE * scenario.byte_stands_for)
        self._by_id: dict[HostId, SimHost] = {}
        self._home: dict[HostId, Datacenter] = {}
        self._running = 0
        self._latencies = Latencies(scenario.latency_ms / 1000, scenario.wan_latency_ms / 1000)
        self._unsent_bytes = UNSENT_BYTES / scenario.byte_stands_for
        self._turns: dict[HostId, Lane] = {}
        """What passes on cores that hosts share, by receiver."""
        self.upstream: Upstream | None = None
        if scenario.upstream_mbit:
            latency_s = scenario.upstream_latency_ms / 1000
            rate, rng = scenario.upstream_mbit * MBIT, self._fork("upstream")
            self.upstream = Upstream(rate, latency_s, scenario.upstream_faults, rng)
        self.datacenters = self._make_datacenters()
        self.blobs = [
            self.content.add(f"layer {i}", round(mib * (1 << 20)), scenario.chunks_per_record)
            for i, mib in enumerate(scenario.layers)
        ]
        self.seeds = self._make_seeds()
        for wave in scenario.waves:
            for _ in range(wave.hosts):
                self._make_pull(wave)
        self._break_some()

    def _fork(self, name: str) -> Random:
        return Random(f"{self._seed} {name}")

    # --- hosts ----------------------------------------------------------------------------------

    def _make_datacenters(self) -> list[Datacenter]:
        made, rate = [], self.scenario.wan_mbit * MBIT
        for number in range(1, self.scenario.datacenters + 1):
            name = f"dc{number}"
            tracker = SimTracker(self.clock, name, number, rng=self._fork(f"tracker {number}"))
            tracker.checks = self._checks
            made.append(Datacenter(name, tracker, Lane(rate), Lane(rate)))
        for here in made:
            for there in made:
                if here is not there:
                    outages = (here.outage, there.outage)
                    here.tracker.federate(there.tracker, self._latencies.far_s, outages)
        return made

    def _make_host(self, mbit: float, role: Role, home: Datacenter) -> SimHost:
        number = len(self._by_id) + 16
        host_id = HostId(f"{number:032x}")
        self._home[host_id] = home
        if role is Role.PROXY:
            home.proxies.append(host_id)
        host = self._by_id[host_id] = SimHost(
            self.clock,
            self.content,
            host_id,
            role=role,
            place=Place(home.name),
            card=Card(self.clock, mbit * MBIT, mbit * MBIT),
            rng=self._fork(host_id),
            costs=self._costs,
            connect=self._connect,
            cut=self._cut,
            owner=home.owner,
            is_proxy_id=home.proxies.__contains__,
            write=self._write,
        )
        host.checks = self._checks
        host.line.start(home.tracker, self._latencies.near_s)
        return host

    def _make_seeds(self) -> list[SimHost]:
        proxies = self.scenario.seeds if self.scenario.seed_kind == "proxy" else 1
        seeds = []
        for home in self.datacenters:
            for number in range(self.scenario.seeds):
                role = Role.PROXY if number < proxies else Role.PEER
                seeds.append(self._make_host(self.scenario.seed_mbit, role, home))
        for seed in seeds:
            if self.upstream is not None:
                self._read_upstream(seed, self.upstream)
                continue
            owner = self._home[seed.host_id].owner
            for blob in self.blobs:
                if seed.member.role is Role.PEER or owner(blob.digest) == seed.host_id:
                    seed.hold_whole(blob.digest)
        return seeds

    def _read_upstream(self, proxy: SimHost, upstream: Upstream) -> None:
        """Have it get what it is asked for and has not."""
        running: dict[Digest, Obtaining] = {}

        def wanted(digest: Digest) -> None:
            blob = proxy.core.blobs.get(digest)
            if digest not in running and (blob is None or not blob.complete):
                rng = self._fork(f"{proxy.host_id} {digest}")
                running[digest] = Obtaining(
                    self.clock,
                    self.content,
                    proxy,
                    digest,
                    upstream,
                    rng,
                    over=partial(running.__delitem__, digest),
                )
                running[digest].begin()

        def delivered(digest: Digest) -> None:
            if digest in running:
                running[digest].changed()

        proxy.on_wanted, proxy.on_deliver = wanted, delivered

    def _make_pull(self, wave: Wave) -> None:
        home = self.datacenters[len(self.pulls) % len(self.datacenters)]
        host = self._make_host(self.scenario.host_mbit, Role.PEER, home)
        begin_s = 1.0 + self._rng.uniform(0, wave.within_s)
        pull = Pull(host, begin_s, wave, _left=list(self.blobs))
        host.on_deliver = partial(self._delivered, pull)
        self.pulls.append(pull)
        self._running += 1
        self.clock.at(begin_s, partial(self._begin, pull))

    def _latency_s(self, here: HostId, there: HostId) -> float:
        return self._latencies.between(self._home[here], self._home[there])

    def _connect(self, host: SimHost, other_id: HostId) -> None:
        other = self._by_id[other_id]
        now_s, delay_s = self.clock.now_s, 4 * self._latency_s(host.host_id, other_id)
        come_s = self._route(host, other).arrives_s(now_s + delay_s)
        if come_s > now_s + delay_s + CONNECT_S:
            self.clock.after(CONNECT_S, partial(host.not_linked, other_id))
        else:
            self.clock.at(come_s, partial(self._connected, host, other))

    def _connected(self, host: SimHost, other: SimHost) -> None:
        banned = other.core.trust.banned(host.host_id, self.clock.now_s)
        if banned or not (host.alive and other.alive):
            host.not_linked(other.host_id)
            return
        if other.host_id in host.links:  # their dial came first
            host.linked(other.host_id)
            return
        there = self._end(host, other)
        back = self._end(other, host)
        host.link_up(other.member, there, back)
        other.link_up(host.member, back, there)

    def _cut(self, host: SimHost, other_id: HostId) -> None:
        """Their link ends, and both hear so."""
        other = self._by_id[other_id]
        host.link_down(other_id)
        latency_s = self._latency_s(host.host_id, other_id)
        self.clock.after(latency_s, partial(other.link_down, host.host_id))

    def _end(self, sender: SimHost, receiver: SimHost) -> End:
        return End(
            self.clock,
            sender.card,
            receiver.card,
            self._route(sender, receiver),
            take_chunk=partial(receiver.take_chunk, sender.host_id),
            take_frames=partial(receiver.take_frames, sender.host_id),
        )

    def _route(self, sender: SimHost, receiver: SimHost) -> Route:
        here, there = self._home[sender.host_id], self._home[receiver.host_id]
        return route(here, there, self._latencies, self._unsent_bytes, self._turn(receiver))

    def _turn(self, receiver: SimHost) -> tuple[Lane, ...]:
        """Of the cores that hosts share: a scheduler gives those that want all the same."""
        scenario = self.scenario
        if not scenario.cores:
            return ()
        fair = scenario.cores / scenario.cpu_s_per_gb * 1e9 / scenario.hosts
        return (self._turns.setdefault(receiver.host_id, Lane(fair)),)

    # --- pulls ----------------------------------------------------------------------------------

    def _begin(self, pull: Pull) -> None:
        if not pull.host.alive:
            return
        while pull._left and len(pull._readers) < self.scenario.layers_at_once:
            blob = pull._left.pop(0)
            core = pull.host.pull(blob.digest)
            number = core.wanting.open_reader(self.clock.now_s)
            search = self._search(pull.host, blob.digest)
            reader = _Reader(number, search, free_s=self.clock.now_s)
            pull._readers[blob.digest] = reader
            reader.waits_since_s = self.clock.now_s
            pull.host.happened()

    def _search(self, host: SimHost, digest: Digest) -> Search:
        home = self._home[host.host_id]

        def alive() -> list[SimHost]:
            return [self._by_id[p] for p in home.owners(digest) if self._by_id[p].alive]

        return Search(self.clock, host, digest, alive, 2 * self._latencies.near_s)

    def _delivered(self, pull: Pull, digest: Digest) -> None:
        reader = pull._readers.get(digest)
        if reader is not None:
            self._read_on(pull, digest, reader)

    def _read_on(self, pull: Pull, digest: Digest, reader: _Reader) -> None:
        now_s, blob = self.clock.now_s, pull.host.core.blobs[digest]
        end = blob.deliverable_end(reader.at)
        if end <= reader.at or now_s < reader.free_s or digest not in pull._readers:
            return
        if reader.at and reader.waits_since_s is not None:
            pull.stalled_s = max(pull.stalled_s, now_s - reader.waits_since_s)
        rate = pull.wave.reads_mb_per_s * 1e6
        if rate:
            end = min(end, reader.at + (1 << 20))
            reader.free_s = now_s + (end - reader.at) / rate
            self.clock.at(reader.free_s, partial(self._read_on, pull, digest, reader))
        blob.wanting.goes_out(reader.number, reader.at, end, now_s)
        reader.at = end
        reader.waits_since_s = max(now_s, reader.free_s)
        if end == blob.geometry.size_bytes:
            blob.close_reader(reader.number, now_s)
            reader.search.end()
            del pull._readers[digest]
            self._note(f"{pull.host.host_id} has {digest}")
            self._begin(pull)
            if not pull._readers:
                self._end_pull(pull)
        else:
            blob.wanting.reader_at(reader.number, end, now_s)

    def _end_pull(self, pull: Pull) -> None:
        pull.end_s = self.clock.now_s
        self._running -= 1
        if pull.wave.leaves:
            self.clock.at(self.clock.now_s, partial(self.kill, pull.host, leaving=True))

    def _note(self, text: str) -> None:
        self.trace.update(f"{self.clock.now_s!r} {text}\n".encode())

    # --- faults ---------------------------------------------------------------------------------

    def _break_some(self) -> None:
        faults, pulls = self.scenario.faults, list(self.pulls)
        self._rng.shuffle(pulls)
        limit_s = self.scenario.size_bytes / (self.scenario.host_mbit * MBIT)
        for share, do in (
            (faults.killed, partial(self._kill_midway, limit_s)),
            (faults.slow, self._slow_down),
            (faults.liars, self._lie),
        ):
            for pull in pulls[: round(share * len(self.pulls))]:
                pull.healthy = False
                self._running -= 1
                do(pull)
            del pulls[: round(share * len(self.pulls))]
        if faults.tracker_killed_at_s:
            for home in self.datacenters[: 1 if faults.tracker_of_one else None]:
                self.clock.at(faults.tracker_killed_at_s, home.tracker.stop)
                if faults.tracker_back_s:
                    back_s = faults.tracker_killed_at_s + faults.tracker_back_s
                    self.clock.at(back_s, home.tracker.start_again)
        if faults.proxy_killed_at_s:
            self.clock.at(faults.proxy_killed_at_s, partial(self.kill, self.seeds[0]))

        if faults.wan_cut_at_s:
            self._cut_off(self.datacenters[0], faults.wan_cut_at_s, faults.wan_cut_s)

    def _cut_off(self, home: Datacenter, at_s: float, for_s: float) -> None:
        home.outage.from_s, home.outage.until_s = at_s, at_s + for_s
        if for_s > SILENT_S:
            self.clock.at(at_s + SILENT_S, partial(self._give_up_links, home))

    def _give_up_links(self, home: Datacenter) -> None:
        """Both ends of the links out of it have heard nothing for too long."""
        for host_id, host in self._by_id.items():
            for other in list(host.links) if self._home[host_id] is home else ():
                if self._home[other] is not home:
                    host.link_down(other)
                    self._by_id[other].link_down(host_id)

    def _kill_midway(self, limit_s: float, pull: Pull) -> None:
        at_s = pull.begin_s + self._rng.uniform(0.2, 0.8) * limit_s
        self.clock.at(at_s, partial(self.kill, pull.host))

    def _slow_down(self, pull: Pull) -> None:
        for lane in (pull.host.card.up, pull.host.card.down):
            lane.bytes_per_s /= 10

    @staticmethod
    def _lie(pull: Pull) -> None:
        pull.host.lies = True

    def kill(self, host: SimHost, *, leaving: bool = False) -> None:
        """A host is gone, and those linked to it hear so; the tracker too, if it is `leaving`."""
        if not host.alive:
            return
        others = list(host.links)
        host.stop(leaving=leaving)
        for other in others:
            latency_s = self._latency_s(host.host_id, other)
            self.clock.after(latency_s, partial(self._by_id[other].link_down, host.host_id))

    # --- the run --------------------------------------------------------------------------------

    def run(self, *, end_s: float) -> bool:
        """Let it go on until every healthy host has the image; False: some had not by `end_s`."""
        return self.clock.run(lambda: self._running <= 0, end_s=end_s)

    def limit_s(self) -> float:
        """The least time that the slowest share of the network needs for one host's image."""
        scenario, size = self.scenario, self.scenario.size_bytes
        seeds = scenario.seeds * scenario.seed_mbit * MBIT
        uploads = len(self.datacenters) * seeds + scenario.hosts * scenario.host_mbit * MBIT
        host = scenario.host_mbit * MBIT
        limit_s = max(size / seeds, size / host, scenario.hosts * size / uploads)
        if len(self.datacenters) > 1:  # whoever reads it feeds its own and one other
            limit_s = max(limit_s, 2 * size / seeds, size / (scenario.wan_mbit * MBIT))
        if self.upstream is not None:
            limit_s = max(limit_s, size / self.upstream.lane.bytes_per_s)
        return limit_s

    @property
    def hosts(self) -> list[SimHost]:
        return list(self._by_id.values())
