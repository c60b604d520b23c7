"""The tracker's process: control connections, admin port."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from p2pdist import __version__
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process.admin import AdminServer
from p2pdist.process.collector import short_pauses
from p2pdist.process.daemon import notify
from p2pdist.process.files import state_directory
from p2pdist.process.identity_holder import (
    IdentityHolder,
    identity_holder,
    identity_samples,
    identity_status,
)
from p2pdist.process.metrics import Sample, node_info
from p2pdist.process.proxy_key_holder import (
    proxy_key_holder,
    proxy_key_samples,
    proxy_key_status,
)
from p2pdist.process.secret_holder import (
    SecretHolder,
    secret_holder,
    secret_samples,
    secret_status,
)
from p2pdist.settings import Settings
from p2pdist.settings_json import as_json
from p2pdist.tracker.core.state import TrackerLimits
from p2pdist.tracker.job_callers import JobCallers
from p2pdist.tracker.job_desk import JobDesk
from p2pdist.tracker.job_http import JobHttp
from p2pdist.tracker.job_metrics import fleet_samples, job_counts, job_samples
from p2pdist.tracker.job_store import FILE_NAME, sqlite_job_store
from p2pdist.tracker.join_store import FILE_NAME as JOINS_FILE_NAME
from p2pdist.tracker.join_store import sqlite_join_store
from p2pdist.tracker.joining import JoinServer, join_address, join_samples
from p2pdist.tracker.operator_renewing import RenewalHttp
from p2pdist.tracker.renewing import Renewer, renewal_samples, renewer_of
from p2pdist.tracker.server import TrackerServer


@dataclass(frozen=True, slots=True)
class RunningTracker:
    server: TrackerServer
    control: Address
    admin: Address
    admin_server: AdminServer
    secret: SecretHolder


@asynccontextmanager
async def running_tracker(settings: Settings) -> AsyncIterator[RunningTracker]:
    """Run a tracker for as long as the block lasts. Raises ConfigError, OSError."""
    own = settings.tracker
    state_dir = state_directory(settings.host.state_dir / "tracker")
    identity = identity_holder(settings, Role.TRACKER)
    if identity is None:
        own_id = HostId(secrets.token_hex(16))
    else:
        own_id = identity.current.identity.host_id
    renewer = renewer_of(settings, identity)
    me = Member(own_id, Role.TRACKER, Place(settings.host.dc))
    secret, proxy_keys = secret_holder(settings), proxy_key_holder(settings)
    server = TrackerServer(
        own.listen,
        secret=secret,
        me=me,
        proxy_keys=proxy_keys,
        rng=Random(secrets.randbits(64)),  # noqa: S311  # chance for spreading load, no secret
        limits=TrackerLimits(own.announce_interval_s, own.heartbeat_s),
        state_dir=state_dir,
        federation=own.federation,
        job_store=sqlite_job_store(state_dir / FILE_NAME),
        identity=identity,
        renewer=renewer,
        member_networks=settings.cluster.member_networks,
    )
    started_s = asyncio.get_running_loop().time()
    async with AsyncExitStack() as stack:
        joins = await _joins(settings, identity, renewer, stack)
        control = await server.start()
        stack.push_async_callback(server.close)

        def status() -> dict[str, Any]:
            uptime_s = asyncio.get_running_loop().time() - started_s
            told: dict[str, Any] = {"uptime_s": round(uptime_s, 3), "control": str(control)}
            told |= {**identity_status(identity), **secret_status(secret)}
            told |= proxy_key_status(proxy_keys)
            return {**_status(server, me), **told}

        callers = JobCallers(secret.believed, identity)
        admin = AdminServer(
            own.admin_listen,
            status=status,
            samples=lambda: [
                *_samples(server, me, identity),
                *secret_samples(secret),
                *proxy_key_samples(proxy_keys),
                *renewal_samples(renewer),
                *(join_samples(joins) if renewer is not None else ()),
            ],
            ready=lambda: {"control": True},
            degraded=server.health.names,
            routes=[
                *JobHttp(JobDesk(server), callers).routes(),
                RenewalHttp(callers, renewer).route(),
            ],
            names=settings.host.http_names,
            settings=partial(as_json, settings),
            tls=lambda: _shown(identity),
        )
        stack.push_async_callback(admin.close)
        yield RunningTracker(server, control, await admin.start(), admin, secret)


def _shown(own: IdentityHolder | None) -> ssl.SSLContext | None:
    """What the admin port speaks TLS with to who begins with that."""
    now = None if own is None else own.spoken
    return None if now is None else now.server


async def _joins(
    settings: Settings,
    own: IdentityHolder | None,
    renewer: Renewer | None,
    stack: AsyncExitStack,
) -> JoinServer | None:
    """Open the door for hosts with a token, if the settings say so."""
    listen = join_address(settings)
    if listen is None or own is None or renewer is None:
        return None
    store = sqlite_join_store(settings.host.state_dir / "tracker" / JOINS_FILE_NAME)
    joins = JoinServer(settings.tracker.join, listen, own, renewer, store)
    await joins.start()
    stack.push_async_callback(joins.close)
    return joins


def _status(server: TrackerServer, me: Member) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "version": __version__,
        "role": me.role.value,
        "host_id": me.host_id,
        "dc": me.place.dc,
        "hosts_connected": server.core.hosts_connected,
        "swarms": {"active": len(server.core.swarms)},
        "leases": len(server.core.leases),
        "jobs": job_counts(server.core.jobs),
        "federated": sorted(server.core.grants.remotes),
        "degraded": server.health.status(),
        "counters": dataclasses.asdict(server.core.counters),
    }


def _samples(
    server: TrackerServer, me: Member, identity: IdentityHolder | None
) -> Iterable[Sample]:
    core = server.core
    yield node_info(me.role, me.place)
    text = "Hosts with a control connection."
    yield Sample("p2pdist_hosts_connected", "gauge", text, {}, core.hosts_connected)
    yield Sample("p2pdist_swarms", "gauge", "Swarms with a member.", {}, len(core.swarms))
    yield Sample("p2pdist_leases", "gauge", "Leases in force.", {}, len(core.leases))
    remotes = len(core.grants.remotes)
    text = "Trackers of other datacenters that are reached."
    yield Sample("p2pdist_trackers_federated", "gauge", text, {}, remotes)
    for name, value in dataclasses.asdict(core.counters).items():
        words = name.removesuffix("_total").replace("_", " ")
        yield Sample(f"p2pdist_tracker_{name}", "counter", f"Tracker: {words}.", {}, value)

    intake = server.reception.intake
    text = "Hosts that were told when to come back, as they would have waited too long."
    yield Sample("p2pdist_tracker_sent_away_total", "counter", text, {}, intake.sent_away_total)
    text = "Connections dropped unread: they had waited for longer than a host does."
    yield Sample("p2pdist_tracker_dropped_total", "counter", text, {}, intake.dropped_total)
    yield from server.health.samples()
    yield from identity_samples(identity)
    yield from job_samples(core.jobs)
    yield from fleet_samples(core.sums.totals)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`, then drain."""
    async with short_pauses(), running_tracker(settings) as tracker:
        notify("READY=1")
        await stop.wait()
        tracker.admin_server.draining = True
