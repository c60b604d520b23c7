"""Simulated hosts that speak the real control protocol; only their transfers are made up.

A host takes its order, announces the image part by part while its made-up transfer runs, answers
proofs from the bytes that all hosts share, and misbehaves as its `Conduct` says. What is true of it
at any moment, whatever a tracker believes, is in its `Truth`.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bench.prewarm.content import PLATFORM, Content
from p2pdist.control.core.announcing import INVENTORY_SPREAD_INTERVALS
from p2pdist.control.core.redial import Redial
from p2pdist.control.line import ControlLine
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.control import (
    Announce,
    Delta,
    Describe,
    FromTracker,
    Prewarm,
    PrewarmReport,
    Proof,
    Prove,
    Status,
    SwarmKey,
    Welcome,
)
from p2pdist.model.control_wire import FrameCodec, shared_codecs
from p2pdist.model.handshake import Session
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process.tasks import TaskOwner

HOSTS_PER_RACK: Final = 40
# The numbers that a peer sends with its heartbeat.
_SOURCES: Final = ("rack", "dc", "proxy", "wan", "upstream")
_NUMBERS: Final = dict.fromkeys([*(f"received_{s}" for s in _SOURCES), "sent_peer", "bans"], 1.0)


class Conduct(enum.StrEnum):
    """What a host does wrong; all but NO_SPACE and SLOW once `misbehave` is called."""

    GOOD = "good"
    SLOW = "slow"
    """Good, but its transfer ends no sooner than `Fleet.release_slow`: keeps a job running."""
    NO_SPACE = "no_space"
    """Answers its order with a failure."""
    WIPE = "wipe"
    """Announces the loss of everything."""
    EVICT = "evict"
    """Announces the loss of one layer."""
    LIE_WRONG = "lie_wrong"
    """Loses the bytes, announces nothing and makes proofs up."""
    LIE_SILENT = "lie_silent"
    """Loses the bytes, announces nothing and answers no proof."""
    VANISH = "vanish"
    """Loses its connection and never comes back."""


WRONGED: Final[tuple[Conduct, ...]] = tuple(
    c for c in Conduct if c not in (Conduct.GOOD, Conduct.SLOW)
)


@dataclass(slots=True)
class Truth:
    """Moments of one host on the loop's clock; None: not so far."""

    complete_s: float | None = None
    """It had announced its last part."""
    proven_s: float | None = None
    """It answered a proof rightly that came in after that: ready from here on."""
    ended_s: float | None = None
    """It stopped to hold what it announced, or to be there."""


@dataclass(slots=True)
class Seen:
    """What the tracker sent, over all hosts."""

    received: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    """Connections by why they ended."""


@dataclass(slots=True)
class Fleet:
    """What all hosts share. `fetch_s`: shortest and longest made-up transfer, in seconds."""

    host: str
    port: int
    secret: bytes
    content: Content
    rng: Random
    fetch_s: tuple[float, float]
    hosts: list[SimHost] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    tasks: TaskOwner = field(default_factory=lambda: TaskOwner("fleet"))
    slow_released: bool = False
    closing: bool = False
    codecs: dict[int, FrameCodec] = field(default_factory=shared_codecs)

    def connected(self) -> int:
        return sum(host.line is not None for host in self.hosts)

    def of(self, *conducts: Conduct) -> list[SimHost]:
        return [host for host in self.hosts if host.conduct in conducts]

    async def connect(self, *, at_once: int) -> None:
        """Dial for all hosts, `at_once` at a time; return once each has its welcome."""
        gate = asyncio.Semaphore(at_once)

        async def bring_up(host: SimHost) -> None:
            async with gate:
                host.dial()
                await host.welcomed.wait()

        async with asyncio.TaskGroup() as tasks:
            for host in self.hosts:
                tasks.create_task(bring_up(host), name=f"connect {host.name}")

    def misbehave(self, conducts: Sequence[Conduct]) -> int:
        """Let ready hosts of these conducts do what they do; return how many did."""
        ready = [host for host in self.of(*conducts) if host.truth.proven_s is not None]
        for host in ready:
            host.misbehave()
        return len(ready)

    def release_slow(self) -> None:
        self.slow_released = True

    async def close(self) -> None:
        self.closing = True
        await self.tasks.close()
        for host in self.hosts:
            host.close()


class SimHost:
    """One host; a state machine driven by its line and by timers of the loop."""

    def __init__(self, fleet: Fleet, member: Member, name: str, conduct: Conduct) -> None:
        self.member = member
        self.name = name
        self.conduct = conduct
        self.truth = Truth()
        self.line: ControlLine | None = None
        self.welcomed = asyncio.Event()
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        self._held: dict[SwarmKey, Delta] = {}
        self._orders: set[str] = set()
        self._lying = False
        self._gone = False
        self._refuses = conduct is Conduct.NO_SPACE
        self._interval_s = 1.0
        self._heartbeat_s = 10.0
        self._fetching = False
        self._left: list[Delta] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._redial = Redial(["the tracker"], fleet.rng)
        self._up_s = 0.0

    # --- its connection -------------------------------------------------------------------------

    def dial(self) -> None:
        if not self._gone and not self._fleet.closing:
            self._fleet.tasks.start(self._dial(), name=f"dial {self.name}")

    async def _dial(self) -> None:
        fleet = self._fleet
        line = ControlLine(self, ClusterSecrets((fleet.secret,)), self.member, fleet.codecs)
        try:
            await self._loop.create_connection(lambda: line, fleet.host, fleet.port)
        except OSError as error:
            fleet.seen.lost[f"no connection: {error.strerror}"] += 1
            self._redial.failed()
            self._dial_later()

    def _dial_later(self) -> None:
        self._after("dial", self._redial.delay_s(self._loop.time()), self.dial)

    def line_up(self, line: ControlLine, session: Session) -> None:
        self.line = line
        self._up_s = self._loop.time()

    def line_lost(self, line: ControlLine, why: str) -> None:
        now_s = self._loop.time()
        self._fleet.seen.lost[why] += 1
        if line.retry_after_s is not None:
            self._redial.refused(line.retry_after_s, now_s)
        elif line is self.line:
            self.line = None
            self._drop("beat", "inventory")
            self._redial.lost(now_s - self._up_s)
        else:
            self._redial.failed()
        if not self._gone and not self._fleet.closing:
            self._dial_later()

    def close(self) -> None:
        self._drop(*list(self._timers))
        if self.line is not None:
            self.line.abort()

    # --- from the tracker -----------------------------------------------------------------------

    def take(self, line: ControlLine, message: FromTracker) -> None:
        self._fleet.seen.received[type(message).__name__] += 1
        match message:
            case Welcome(_, interval_s, heartbeat_s):
                self._greet(interval_s, heartbeat_s)
            case Prewarm():
                self._order(message.job)
            case Prove():
                self._prove(message)
            case _:
                pass  # counted above; nothing else changes what a host holds

    def _greet(self, interval_s: float, heartbeat_s: float) -> None:
        """Describe first, then the inventory: at once, or spread as a returning host does."""
        assert self.line is not None
        self._interval_s, self._heartbeat_s = interval_s, heartbeat_s
        self.line.send(Describe(self.name, [f"rack={self.member.place.rack}"], PLATFORM))
        returning = self.welcomed.is_set()
        spread_s = INVENTORY_SPREAD_INTERVALS * interval_s * self._fleet.rng.random()
        self._after("inventory", spread_s if returning else 0.0, self._announce_all)
        # Hosts that were started by the same push would otherwise beat together for ever.
        self._after("beat", heartbeat_s * self._fleet.rng.random(), self._beat)
        self.welcomed.set()

    def _announce_all(self) -> None:
        if self.line is not None:
            self.line.send(Announce(list(self._held.values()), full=True))

    def _beat(self) -> None:
        if self.line is not None:
            self.line.send(Status(_NUMBERS))
            spread = 0.9 + 0.1 * self._fleet.rng.random()
            self._after("beat", self._heartbeat_s * spread, self._beat)

    # --- orders ---------------------------------------------------------------------------------

    def _order(self, job: str) -> None:
        self._orders.add(job)
        if self._refuses:
            self._report(PrewarmReport(job, "failed", "no_space", "no room in the store"))
        elif self.truth.complete_s is not None:
            self._report(PrewarmReport(job, "fetched"))
        elif not self._fetching:
            self._fetching = True
            self._left = self._steps()
            self._report(PrewarmReport(job, "fetching"))
            # The parts that come first are announced within an interval, not all at one moment.
            self._after("fetch", self._interval_s * self._fleet.rng.random(), self._first_step)

    def _first_step(self) -> None:
        self._announce([Delta(key, 1, True) for key in self._fleet.content.small])
        self._after("fetch", self._step_s(), self._step)

    def _steps(self) -> list[Delta]:
        """The layers of a made-up transfer, half and whole, in the order of its end."""
        content = self._fleet.content
        halves = [Delta(key, content.chunks(key) // 2, False) for key in content.layers]
        wholes = [Delta(key, content.chunks(key), True) for key in content.layers]
        return [step for pair in zip(halves, wholes, strict=True) for step in pair][::-1]

    def _step_s(self) -> float:
        shortest_s, longest_s = self._fleet.fetch_s
        whole_s = shortest_s + (longest_s - shortest_s) * self._fleet.rng.random()
        return whole_s / (2 * len(self._fleet.content.layers))

    def _step(self) -> None:
        """One step further; the last one of a slow host waits until it is let go."""
        if self.line is None or (
            len(self._left) == 1 and self.conduct is Conduct.SLOW and not self._fleet.slow_released
        ):
            self._after("fetch", self._interval_s, self._step)
            return
        self._announce([self._left.pop()])
        if self._left:
            self._after("fetch", self._step_s(), self._step)
            return
        self._fetching = False
        self.truth.complete_s = self._loop.time()
        for job in self._orders:
            self._report(PrewarmReport(job, "fetched"))

    def _announce(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            if delta.complete or delta.held_chunks:
                self._held[SwarmKey(delta.key)] = delta
            else:
                self._held.pop(SwarmKey(delta.key), None)
        if self.line is not None:
            self.line.send(Announce(deltas))

    def _report(self, report: PrewarmReport) -> None:
        if self.line is not None:
            self.line.send(report)

    def _prove(self, asked: Prove) -> None:
        if self.line is None or (self._lying and self.conduct is Conduct.LIE_SILENT):
            return
        if self._lying:
            self.line.send(Proof(asked.seq, bytes(32)))
            return
        held = (self._held.get(SwarmKey(part.digest)) for part in asked.parts)
        whole = all(delta is not None and delta.complete for delta in held)
        answer = self._fleet.content.prove(asked) if whole else b""
        self.line.send(Proof(asked.seq, answer))
        truth = self.truth
        if answer and truth.complete_s is not None and truth.proven_s is None:
            truth.proven_s = self._loop.time()

    # --- misbehaviour ---------------------------------------------------------------------------

    def misbehave(self) -> None:
        self.truth.ended_s = self._loop.time()
        match self.conduct:
            case Conduct.WIPE:
                self._lose(list(self._held))
            case Conduct.EVICT:
                self._lose([self._fleet.content.layers[0]])
            case Conduct.LIE_WRONG | Conduct.LIE_SILENT:
                self._lying = True
            case Conduct.VANISH:
                self._gone = True
                self.close()
            case _:
                raise AssertionError(f"{self.conduct} does nothing wrong later")

    def _lose(self, keys: list[SwarmKey]) -> None:
        """Announce it and, as there is no room to fetch it again, say so of every order."""
        self._announce([Delta(key, 0, False) for key in keys])
        self._refuses = True
        for job in self._orders:
            self._report(PrewarmReport(job, "failed", "no_space", "evicted, no room to fetch it"))

    # --- timers ---------------------------------------------------------------------------------

    def _after(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        self._drop(name)
        self._timers[name] = self._loop.call_later(delay_s, call)

    def _drop(self, *names: str) -> None:
        for name in names:
            if (timer := self._timers.pop(name, None)) is not None:
                timer.cancel()


def fill(
    fleet: Fleet, *, count: int, dcs: Sequence[str], wronged: float, slow: float, proxies: int
) -> None:
    """Give the fleet `count` peers and `proxies` proxies a datacenter, evenly over `dcs`.

    `wronged` and `slow` are shares of the peers; the wronged ones are split evenly by conduct.
    """
    numbers = fleet.rng.sample(range(count), count)
    conducts: dict[int, Conduct] = {}
    for conduct in WRONGED:
        for _ in range(round(count * wronged / len(WRONGED))):
            conducts[numbers.pop()] = conduct
    for _ in range(round(count * slow)):
        conducts[numbers.pop()] = Conduct.SLOW
    for number in range(proxies * len(dcs)):
        member = _member(count + number, Role.PROXY, dcs)
        fleet.hosts.append(SimHost(fleet, member, f"proxy-{number}", Conduct.GOOD))
    for number in range(count):
        conduct = conducts.get(number, Conduct.GOOD)
        member = _member(number, Role.PEER, dcs)
        fleet.hosts.append(SimHost(fleet, member, f"node-{number}", conduct))


def _member(number: int, role: Role, dcs: Sequence[str]) -> Member:
    place = Place(dcs[number % len(dcs)], f"r{number // HOSTS_PER_RACK}")
    # Nobody dials it: transfers are made up.
    address = Address("127.0.0.1", 1024 + number % 64_000)
    return Member(HostId(f"{number + 1:032x}"), role, place, (address,))
