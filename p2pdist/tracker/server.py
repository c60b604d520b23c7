"""The tracker's shell: messages in, `TrackerCore` in the middle, messages out; no rule of its own.

All waits are for the network or the core's one deadline. Runs on uvloop and on stock asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final, TypeVar, assert_never

import msgspec

from p2pdist.control.renewing import Renewing
from p2pdist.model.control import (
    Announce,
    FromTracker,
    LeaseAsk,
    Renew,
    RevokedHosts,
    ToTracker,
    encoder,
    to_tracker_decoder,
)
from p2pdist.model.control_wire import (
    FEATURE_RENEW,
    FEATURE_REVOKED_HOSTS,
    FEATURE_ZSTD,
    FEATURES,
    CloseCode,
    Kind,
    frame,
    shared_codecs,
)
from p2pdist.model.health import Reason
from p2pdist.model.members import Address, Member
from p2pdist.model.private_places import IpNetwork
from p2pdist.process import audit, clock, logs
from p2pdist.process.health import Health
from p2pdist.process.identity_holder import IdentityHolder, identity_conditions
from p2pdist.process.proxy_key_holder import ProxyKeyHolder, proxy_key_conditions
from p2pdist.process.secret_holder import SecretHolder, secret_conditions
from p2pdist.process.tasks import TaskOwner
from p2pdist.tracker import snapshot
from p2pdist.tracker.admission import check_member, who_shown
from p2pdist.tracker.connection import Connection
from p2pdist.tracker.core.grants import Forward, ForwardEnd
from p2pdist.tracker.core.jobs.book import JobBook
from p2pdist.tracker.core.orders import Close, Send, SendAll, SendMany
from p2pdist.tracker.core.state import (
    Event,
    HostConnected,
    HostDisconnected,
    MessageReceived,
    Order,
    RemoteAnswered,
    RemotesChanged,
    TrackerCore,
    TrackerLimits,
)
from p2pdist.tracker.federation import Federation
from p2pdist.tracker.job_keeping import JobKeeper
from p2pdist.tracker.job_store import JobStore, NoJobStore
from p2pdist.tracker.naming import Naming
from p2pdist.tracker.reception import Reception
from p2pdist.tracker.renewing import Renewer

# A frame to 200 connections takes about 1 ms of the event loop.
SEND_SLICE: Final = 200

T = TypeVar("T")

log = logging.getLogger(__name__)


class TrackerServer:
    """Serves the control connections of one tracker.

    `me` is what hosts are told about the tracker; `state_dir` keeps the snapshot, None: none;
    `federation` are the base URLs of other datacenters' trackers; `job_store` outlives the
    process; `identity`: what TLS is spoken with, see `Reception`.
    """

    def __init__(
        self,
        listen: Address,
        *,
        secret: SecretHolder,
        me: Member,
        proxy_keys: ProxyKeyHolder,
        rng: Random,
        limits: TrackerLimits | None = None,
        state_dir: Path | None = None,
        federation: Sequence[str] = (),
        job_store: JobStore | None = None,
        identity: IdentityHolder | None = None,
        renewer: Renewer | None = None,
        member_networks: Collection[IpNetwork] = (),
    ) -> None:
        """`renewer`: who signs the next certificates of hosts; without one they hear that nobody
        does. `member_networks`: where hosts may say they are beside where they are seen."""
        self._listen = listen
        self._secret = secret
        secret.on_taken.append(self._cut_unbelieved)
        self._me = me
        self._proxy_keys = proxy_keys
        proxy_keys.on_taken.append(self._keys_changed)
        self._rng = rng
        self._limits = limits
        self._snapshot_path = state_dir / snapshot.FILE_NAME if state_dir else None
        self._connections: dict[int, Connection] = {}
        self._codecs = shared_codecs()
        self._tasks = TaskOwner("tracker")
        self.job_keeper = JobKeeper(job_store or NoJobStore())
        self.health = Health()
        self.health.conditions = lambda: {
            **identity_conditions(identity),
            **secret_conditions(secret),
            **proxy_key_conditions(proxy_keys),
        }
        self._identity = identity
        self._federation = Federation(
            federation,
            secret=secret.believed,
            me=me,
            rng=rng,
            health=self.health,
            identity=identity,
            changed=lambda dcs: self._feed(RemotesChanged(dcs)),
            answered=lambda forward, answer: self._feed(RemoteAnswered(forward, answer)),
        )
        self._steps: tuple[Connection, Iterator[Announce]] | None = None
        """The announcement that is being taken in step by step."""
        self._stopping = False
        self._refusals = logs.Sparing()
        self._closings = logs.Sparing()
        self._clones = logs.Sparing()
        self._addresses = logs.Sparing()
        self._renewer = renewer
        features = FEATURES if renewer is not None else FEATURES & ~FEATURE_RENEW
        if identity is not None:
            identity.revocations.on_more.append(self._more_revoked)
        self._naming = Naming(member_networks, lambda: self._federation.addresses)
        self.reception = Reception(
            self,
            secret=secret.believed,
            me=me,
            identity=identity,
            features=features,
            naming=self._naming,
        )
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0
        self.core: TrackerCore
        """From `start` on; its counters are the tracker's metrics."""

    async def start(self) -> Address:
        """Load the snapshot and listen; return the address, with the port that was bound.

        Raises OSError where the address cannot be bound.
        """
        self._loop = asyncio.get_running_loop()
        self.core = TrackerCore(
            epoch=secrets.token_hex(8),
            dc=self._me.place.dc,
            epoch_s=self._loop.time(),
            epoch_unix_s=clock.unix_s(),
            keyring=self._proxy_keys.keyring,
            rng=self._rng,
            limits=self._limits,
            token=os.urandom,
        )
        if self._snapshot_path is not None:
            await snapshot.load(self.core, self._snapshot_path, self._loop.time())
        await self.job_keeper.load(self.core.jobs, self._loop.time())
        self._arm_timer()
        address = await self.reception.listen(self._listen)
        self._federation.start()
        if self._snapshot_path is not None:
            keep = snapshot.keep_writing(self.core, self._snapshot_path)
            self._tasks.start(keep, name="tracker snapshots")
        self._tasks.start(self.health.watch(), name="health")
        self._tasks.start(self._secret.watch(), name="cluster secret")
        self._tasks.start(self._proxy_keys.watch(), name="proxy keys")
        if self._identity is not None:
            self._tasks.start(self._identity.watch(), name="identity")
            if self._renewer is not None:
                own = Renewing(self._identity, self._renewer.own, lambda: True, self._rng)
                self._tasks.start(own.watch(), name="own renewal")
        self._tasks.start(self.job_keeper.keep_writing(self.core.jobs), name="tracker jobs")
        return Address(self._listen.host, address.port)

    async def close(self) -> None:
        """Say goodbye to all hosts, write a last snapshot and stop listening."""
        self._stopping = True
        await self.reception.close("the tracker is going away")
        await self._federation.close()
        await self._tasks.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._snapshot_path is not None:
            await snapshot.save(self.core, self._snapshot_path)
        await self.job_keeper.close(self.core.jobs)

    async def _keys_changed(self) -> None:
        self.core.revocations.keys_changed()

    async def _cut_unbelieved(self) -> None:
        self._federation.cut_unbelieved()
        await self.reception.cut_unbelieved()

    # --- connections (called by the reception) --------------------------------------------------

    def welcome(self, connection: Connection) -> None:
        self._connections[connection.link] = connection
        member, refused = connection.member, connection.refused
        if refused:
            self._say_refused(member, refused)
        self._feed(
            HostConnected(connection.link, member, connection.peer, connection.instance, refused)
        )
        if records := self._revocations():
            self._send_to(self._wanting([connection]), RevokedHosts(records))

    def _say_refused(self, member: Member, refused: str) -> None:
        """A host that proved others is none the worse for it, as one with IPv4 and IPv6."""
        level = logging.INFO if member.addresses else logging.WARNING
        self._addresses.event(
            log, level, "host.address_refused", host=member.host_id, detail=refused
        )
        if not member.addresses:
            self.health.happened(Reason.ADDRESS_REFUSED, "", refused)

    def take(self, connection: Connection, packed: bytes) -> bool:
        """Feed the core; return whether the same message has another step to come."""
        if self._steps is not None and self._steps[0] is connection:
            step = next(self._steps[1], None)
            if step is None:
                self._steps = None
                return False
            self._feed(MessageReceived(connection.link, step))
            return True
        message: ToTracker = to_tracker_decoder.decode(connection.codec.unpack(packed))
        if isinstance(message, Renew) and self._renewer is not None:
            answer = self._renewer.answered(connection, message)
            self._tasks.start(answer, name="renewal")
            return False
        if isinstance(message, LeaseAsk) and message.on_behalf is not None:
            check_member(message.on_behalf)
            named = self._naming.elsewhere(connection, message.on_behalf)
            message = msgspec.structs.replace(message, on_behalf=named)
        if isinstance(message, Announce) and self.core.is_long(connection.link, message):
            self._steps = connection, self.core.steps(connection.link, message)
            return True
        self._feed(MessageReceived(connection.link, message))
        return False

    def gone(self, connection: Connection) -> None:
        if self._connections.pop(connection.link, None) is not None and not self._stopping:
            self._feed(HostDisconnected(connection.link, connection.leaving))

    def stranger(self, connection: Connection) -> None:
        self.core.counters.strangers_total += 1
        total = self.core.counters.strangers_total
        detail = f"{total} handshakes with another cluster secret so far, the last one from"
        self.health.happened(Reason.STRANGERS, "", f"{detail} {connection.peer}")

    def refused(self, connection: Connection, reason: str) -> None:
        self.core.counters.protocol_faults_total += 1
        self._refusals.event(
            audit.log, logging.WARNING, "control.refused", audit="refused",
            who=who_shown(connection.certificate), peer=connection.peer, error=reason,
        )  # fmt: skip

    # --- revoked hosts --------------------------------------------------------------------------

    def _revocations(self) -> list[bytes]:
        return [] if self._identity is None else self._identity.current.revoked.records

    @staticmethod
    def _wanting(connections: Iterable[Connection]) -> list[Connection]:
        return [one for one in connections if one.features & FEATURE_REVOKED_HOSTS]

    def _more_revoked(self) -> None:
        """Tell everybody, and those that were revoked that they are."""
        assert self._identity is not None
        connections, revoked = list(self._connections.values()), self._identity.current.revoked
        self._send_to(self._wanting(connections), RevokedHosts(revoked.records))
        for one in connections:
            why = revoked.why(one.member.host_id)
            if why and one.certificate is not None:
                one.leaving = True  # it is not waited for, and named to nobody from now on
                one.close(why, CloseCode.IDENTITY)

    # --- the core -------------------------------------------------------------------------------

    def act(self, work: Callable[[JobBook, float], T]) -> T:
        """Let an operator's wish at the jobs, then carry out what follows from it."""
        result = work(self.core.jobs, self._loop.time())
        self._carry_out(self.core.jobs.drain())
        self._arm_timer()
        return result

    def _feed(self, event: Event) -> None:
        self._carry_out(self.core.handle(event, self._loop.time()))
        self._arm_timer()

    def _on_timer(self) -> None:
        self._timer = None
        self._carry_out(self.core.handle_deadline(self._loop.time()))
        self._arm_timer()

    def _arm_timer(self) -> None:
        """Deadlines mostly move back: a timer that rings early is cheaper than one per message."""
        deadline_s = self.core.next_deadline_s()
        if deadline_s is None or (self._timer is not None and self._timer_s <= deadline_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        # uvloop gives a plain handle, without a time, for a moment that has passed.
        self._timer_s = deadline_s
        self._timer = self._loop.call_at(deadline_s, self._on_timer)

    def _carry_out(self, orders: Sequence[Order]) -> None:
        for order in orders:
            match order:
                case Send(link, message):
                    if (connection := self._connections.get(link)) is not None:
                        connection.send(connection.codec.pack(encoder.encode(message)))
                case SendMany(links, message):
                    found = map(self._connections.get, links)
                    self._send_to([one for one in found if one is not None], message)
                case SendAll(message):
                    self._send_to(list(self._connections.values()), message)
                case Close():
                    self._close(order)
                case Forward():
                    self._federation.forward(order)
                case ForwardEnd():
                    self._federation.end(order)
                case _:
                    assert_never(order)

    def _close(self, order: Close) -> None:
        connection = self._connections.get(order.link)
        if connection is None:
            return
        fields = {
            "host": connection.member.host_id,
            "peer": connection.peer,
            "reason": order.reason,
        }
        if order.in_use:
            self._clones.event(log, logging.WARNING, "host.cloned", **fields)
            detail = f"a host at {connection.peer} was told: {order.reason}"
            self.health.happened(Reason.HOST_CLONED, "", detail)
            connection.close(order.reason, CloseCode.ID_IN_USE)
        else:
            self._closings.event(log, logging.WARNING, "control.closed", **fields)
            connection.close(order.reason)

    def _send_to(self, connections: list[Connection], message: FromTracker) -> None:
        payload = encoder.encode(message)
        frames = {
            flag: frame(Kind.MESSAGE, codec.pack(payload)) for flag, codec in self._codecs.items()
        }
        self._send_slice(frames, connections)

    def _send_slice(self, frames: dict[int, bytes], connections: list[Connection]) -> None:
        for connection in connections[:SEND_SLICE]:
            connection.write(frames[FEATURE_ZSTD if connection.codec.compresses else 0])
        if rest := connections[SEND_SLICE:]:
            self._loop.call_soon(self._send_slice, frames, rest)
