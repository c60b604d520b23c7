"""Hosts that are on the control wire and nothing else: they dial, announce, join and beat."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from p2pdist.control.core.announcing import INVENTORY_SPREAD_INTERVALS
from p2pdist.control.core.redial import Redial
from p2pdist.control.line import ControlLine
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.control import Announce, Delta, FromTracker, Join, Status, SwarmKey, Welcome
from p2pdist.model.control_wire import CONNECT_S, HANDSHAKE_S, FrameCodec, shared_codecs
from p2pdist.model.handshake import Session
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process.tasks import TaskOwner
from p2pdist.process.tls import TlsTransport

BLOBS: Final = 50
HOSTS_PER_RACK: Final = 40
BEAT_S: Final = 10.0
# For the tracker's files and the listeners, and as much for what runs the hosts.
SPARE_DESCRIPTORS: Final = 500
# A pair of addresses has 28,000 ports, and each try holds one for a minute.
SOURCES: Final = 200
NUMBERS: Final[dict[str, float]] = {
    f"received_{source}": 1.0 for source in ("rack", "dc", "proxy", "wan")
}


def allowed(hosts: int) -> int:
    """As many of `hosts` as this machine's hard limit of descriptors lets one process have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return min(hosts, hard - SPARE_DESCRIPTORS)


def key(number: int) -> SwarmKey:
    return SwarmKey(f"sha256:{hashlib.sha256(b'%d' % number).hexdigest()}")


def host_id(number: int) -> HostId:
    return HostId(f"{number + 1:032x}")


INVENTORY: Final = [Delta(key(number), 8, True) for number in range(BLOBS)]


@dataclass(slots=True)
class Fleet:
    host: str
    port: int
    secret: bytes
    rng: Random
    up: int = 0
    announced: int = 0
    closing: bool = False
    silent: bool = False
    """Hosts that come up say nothing."""
    lost: Counter[str] = field(default_factory=Counter)
    dials: int = 0
    refused: int = 0
    lag_max_s: float = 0.0
    """Of this process: beyond a second it is the hosts that are slow, not the tracker."""
    contexts: Sequence[ssl.SSLContext] = ()
    """What each host speaks TLS with; none: in clear."""
    hosts: list[ScaleHost] = field(default_factory=list)
    tasks: TaskOwner = field(default_factory=lambda: TaskOwner("fleet"))
    codecs: dict[int, FrameCodec] = field(default_factory=shared_codecs)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def fill(self, count: int) -> None:
        self.hosts += [ScaleHost(self, number) for number in range(count)]
        self.tasks.start(self._watch(), name="lag")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + 0.1
            await asyncio.sleep(0.1)
            self.lag_max_s = max(self.lag_max_s, loop.time() - due_s)

    async def connect(self, per_s: float) -> None:
        """Bring all up, so many a second."""
        for number, host in enumerate(self.hosts, 1):
            host.dial()
            if number % 50 == 0:
                await asyncio.sleep(50 / per_s)
        await self.all_up()

    def announce_all(self, spread_s: float) -> None:
        """Let hosts that were silent say what they hold."""
        for host in self.hosts:
            host.announce_within(spread_s)

    async def all_up(self) -> None:
        await self._until(lambda: self.up)

    async def all_announced(self) -> None:
        await self._until(lambda: self.announced)

    async def _until(self, count: Callable[[], int]) -> None:
        while count() < len(self.hosts):
            self.changed.clear()
            await self.changed.wait()

    async def close(self) -> None:
        self.closing = True
        for host in self.hosts:
            host.close()
        await self.tasks.close()


class ScaleHost:
    """One host; `ControlLine` and `Redial` are the product's, as are all times."""

    __slots__ = ("_fleet", "_number", "_redial", "_returning", "_timer", "_up_s", "line", "member")

    def __init__(self, fleet: Fleet, number: int) -> None:
        address = Address("127.0.0.1", 1024 + number % 64_000)
        place = Place("dc1", f"r{number // HOSTS_PER_RACK}")
        self.member = Member(host_id(number), Role.PEER, place, (address,))
        self.line: ControlLine | None = None
        self._fleet = fleet
        self._number = number
        self._redial = Redial(["the tracker"], fleet.rng)
        self._timer: asyncio.TimerHandle | None = None
        self._returning = False
        self._up_s = 0.0

    def dial(self) -> None:
        if not self._fleet.closing:
            self._fleet.tasks.start(self._dial(), name="dial")

    async def _dial(self) -> None:
        fleet, loop = self._fleet, asyncio.get_running_loop()
        fleet.dials += 1
        line = ControlLine(self, ClusterSecrets((fleet.secret,)), self.member, fleet.codecs)
        # Behind the time-out of the connection itself: from here on there is one to abort.
        self._after(CONNECT_S + 0.01, lambda: line.abort("no answer in time"))
        protocol: asyncio.Protocol = line
        if fleet.contexts:
            protocol = TlsTransport(line, fleet.contexts[self._number], server_side=False)
        source = (f"127.0.0.{2 + self._number % SOURCES}", 0)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: protocol, fleet.host, fleet.port, local_addr=source
                )
        except OSError as error:  # TimeoutError is one
            fleet.lost[f"no connection: {error.strerror or 'timed out'}"] += 1
            self._redial.failed()
            self._dial_later()

    def _dial_later(self) -> None:
        self._after(self._redial.delay_s(asyncio.get_running_loop().time()), self.dial)

    def _after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._drop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, call)

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def announce_within(self, spread_s: float) -> None:
        if self.line is not None:
            self.line.send(Join(self._number, key(0)))
            self._after(spread_s * self._fleet.rng.random(), self.announce)

    def close(self) -> None:
        self._drop_timer()
        if self.line is not None:
            self.line.abort()

    # --- called by the line ---------------------------------------------------------------------

    def line_up(self, line: ControlLine, session: Session) -> None:
        self.line = line
        self._after(HANDSHAKE_S, lambda: line.abort("no welcome in time"))

    def take(self, line: ControlLine, message: FromTracker) -> None:
        if not isinstance(message, Welcome):
            return
        fleet = self._fleet
        self._up_s = asyncio.get_running_loop().time()
        fleet.up += 1
        fleet.changed.set()
        if fleet.silent:
            self._drop_timer()
            return
        line.send(Join(self._number, key(0)))
        spread_s = INVENTORY_SPREAD_INTERVALS * message.announce_interval_s * fleet.rng.random()
        self._after(spread_s if self._returning else 0.0, self.announce)
        self._returning = True

    def line_lost(self, line: ControlLine, why: str) -> None:
        fleet, now_s = self._fleet, asyncio.get_running_loop().time()
        fleet.lost[why.split(" in ")[0]] += 1
        if line.retry_after_s is not None:
            fleet.refused += 1
            self._redial.refused(line.retry_after_s, now_s)
        elif self._up_s:
            fleet.up -= 1
            self._redial.lost(now_s - self._up_s)
        else:
            self._redial.failed()
        self.line, self._up_s = None, 0.0
        if not fleet.closing:
            self._dial_later()

    # --- what it says ---------------------------------------------------------------------------

    def announce(self) -> None:
        if self.line is not None:
            self.line.send(Announce(INVENTORY, full=True))
            self._fleet.announced += 1
            self._fleet.changed.set()
            self._after(BEAT_S * self._fleet.rng.random(), self._beat)

    def _beat(self) -> None:
        if self.line is not None:
            self.line.ping()
            self.line.send(Status(NUMBERS))
            self._after(BEAT_S, self._beat)
