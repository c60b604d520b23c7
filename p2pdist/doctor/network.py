"""Checks over the network: own ports, trackers and proxies, clocks."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from p2pdist.control.line import ControlLine
from p2pdist.doctor.findings import Finding, failed, passed, registries_text, warned
from p2pdist.doctor.local import check_private_layers
from p2pdist.errors import ConfigError, ErrorReason, LinkRefused, PeerFault, WrongSecret
from p2pdist.exchange.dialling import connected
from p2pdist.exchange.transport import probe
from p2pdist.model.clocks import SKEW_TOLERATED_S, ClockBook
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.control import FromTracker
from p2pdist.model.control_wire import FEATURE_RENEW, CloseCode, parse_tracker_url, shared_codecs
from p2pdist.model.handshake import IDENTITY, NO_IDENTITY, Session
from p2pdist.model.health import RULES, Reason
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.statements import key_id
from p2pdist.oci.refusals import fix_of
from p2pdist.oci.registry_list import LIST_BYTES_MAX, parse_by_caller, parse_registries
from p2pdist.process.clock import unix_s
from p2pdist.process.host_identity import HostIdentity, host_identity
from p2pdist.process.identity import proxy_keys, read_secrets
from p2pdist.process.tls import TlsTransport
from p2pdist.registry.proxy_client import EXCHANGE_PORT, KEY_ID, REASON, read_key_id
from p2pdist.settings import Settings

REACH_S: Final = 2.0
# Statements carry times: tags expire, and an open chunk map from the future is not believed.
SKEW_FAIL_S: Final = 90.0
DATE_ERROR_S: Final = 0.5
"""`Date` has whole seconds."""
STATUS_BYTES_MAX: Final = 1 << 20
NO_CERTIFICATE_FIX: Final = "proxy.identity_dir at the proxy"
TRACKER_NAMED: Final = "trackers are named by their tracker.listen, such as tcp://10.0.0.2:5200"


async def check_ports(settings: Settings, role: str) -> AsyncIterator[Finding]:
    """Each port that the daemon listens on is free, or held by a daemon of ours."""
    own: Any = getattr(settings, role)
    names = ["listen", "admin_listen"] + (["exchange_listen"] if role != "tracker" else [])
    for name in names:
        yield await check_port(f"{role}.{name}", getattr(own, name), role, own.admin_listen)


async def check_mirror_port(settings: Settings) -> list[Finding]:
    """Of an all-in-one: it is its proxy that serves the mirror."""
    admin = settings.proxy.admin_listen
    return [await check_port("peer.listen", settings.peer.listen, "all-in-one", admin)]


async def check_port(setting: str, address: Address, role: str, admin: Address) -> Finding:
    """It is free, or held by the daemon that answers at `admin`."""
    error = await asyncio.to_thread(_bind_error, address)
    if error is None:
        return passed("port", f"{address} is free ({setting})")
    if error.errno == errno.EADDRINUSE and await answers(admin):
        return passed("port", f"{address} is served by the running {role}")
    if error.errno == errno.EADDRINUSE:
        fix = f"`ss -ltnp` says who; stop it or choose another with {setting}"
        return failed("port", f"{address} is taken by something else ({setting})", fix)
    fix = f"{setting} needs an address of this host"
    return failed("port", f"{address}: {error.strerror} ({setting})", fix)


def _bind_error(address: Address) -> OSError | None:
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    for family, kind, proto, _, target in infos:
        with socket.socket(family, kind, proto) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # as the daemon binds it, beside the same port of IPv4
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                tried.bind(target)
            except OSError as error:
                return error
    return None


def _reachable(listen: Address) -> Address:
    """Where what listens on `listen` is asked from this host."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    return Address(anywhere.get(listen.host, listen.host), listen.port)


async def answers(admin: Address, path: str = "/livez") -> bool:
    """A daemon of ours says 200 at its admin port."""
    return await ask_admin(admin, path, STATUS_BYTES_MAX) is not None


async def ask_admin(admin: Address, path: str, bytes_max: int) -> bytes | None:
    """What a daemon says at its admin port; None where it does not say 200, or too much."""
    timeout = aiohttp.ClientTimeout(total=REACH_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{_reachable(admin)}{path}") as answer,
        ):
            if answer.status != 200:
                return None
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > bytes_max:
                    return None
            return bytes(body)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


async def check_others(settings: Settings, role: str) -> AsyncIterator[Finding]:
    """Trackers and proxies: reached, one of ours, clocks that agree."""
    own: Any = getattr(settings, role)
    lists = {
        "tracker": getattr(own, "trackers", ()) or getattr(own, "federation", ()),
        "proxy": getattr(own, "proxies", ()) or getattr(own, "parents", ()),
    }
    if role == "peer" and not lists["tracker"]:
        fix = "peer.trackers = tcp://TRACKER:5200; without one a peer only asks its proxies"
        yield warned("tracker", "none is named", fix)
    if role == "peer" and not lists["proxy"]:
        fix = "peer.proxies = http://PROXY:5100"
        yield failed("proxy", "none is named: nobody signs chunk maps for this peer", fix)
    for what, urls in lists.items():
        for finding in await asyncio.gather(
            *(_check_other(what, url, settings, role) for url in urls)
        ):
            for one in finding:
                yield one


async def check_own_proxy(settings: Settings) -> list[Finding]:
    """Of an all-in-one that runs: what its proxy is to the peers of other hosts."""
    url = f"http://{_reachable(settings.proxy.listen)}"
    return await _check_proxy(url, settings, Role.PROXY)


async def check_running(settings: Settings, role: str) -> list[Finding]:
    """What the daemon that runs here complains of; nothing where none runs."""
    own: Any = getattr(settings, role)
    status = await status_of(own.admin_listen)
    if status is None:
        return []
    try:
        troubles = [
            (f"{t['reason']} for {t['for_s']:.0f} s: {t['detail']}", str(t["fix"]))
            for t in status.get("degraded", [])
        ]
    except (KeyError, TypeError, ValueError):
        fix = f"{role}.admin_listen is the address of its admin port"
        return [warned("running", f"{own.admin_listen} is another program's, or version's", fix)]
    found = [warned("running", text, fix) for text, fix in troubles]
    return found or [passed("running", f"the {role} at {own.admin_listen} has nothing to complain")]


async def status_of(admin: Address) -> dict[str, Any] | None:
    body = await ask_admin(admin, "/api/v1/status", STATUS_BYTES_MAX)
    try:
        status = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return status if isinstance(status, dict) else None


async def _check_other(what: str, url: str, settings: Settings, role: str) -> list[Finding]:
    if what == "tracker":
        return await _check_tracker(url, settings, Role(role))
    return await _check_proxy(url, settings, Role(role))


async def _check_tracker(url: str, settings: Settings, role: Role) -> list[Finding]:
    """Shake hands up to the tracker's proof: it shows that both know the same secret, and, where
    this host has an identity, believe each other's certificates.

    Without a secret, which is another check's fault, whoever listens will do."""
    try:
        address = parse_tracker_url(url)
    except ValueError as error:
        return [failed("tracker", f"{url} cannot be asked: {error}", TRACKER_NAMED)]
    secret, identity = _secret_of(settings.cluster.secret_file), _identity_of(settings, role)
    found: list[Finding] = []
    try:
        if secret is None:
            await _connect(address)
            return [passed("tracker", f"{url} answers")]
        probed = await _probe_tracker(address, secret, identity)
        if probed.in_clear and identity is not None and not identity.required:
            text = f"{url} has none: it is spoken to in clear, under the cluster secret alone"
            found.append(warned("identity", text, "tracker.identity_dir at the tracker"))
            probed = await _probe_tracker(address, secret, None)
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer"
        fix = f"is it running, and does the firewall let {address.port} through?"
        return [failed("tracker", f"{url} does not answer: {reason}", fix, remote=True)]
    line = probed.line
    if line.identity_refused:
        text = f"{url}: {line.identity_refused}"
        return [failed("identity", text, RULES[Reason.IDENTITY_REFUSED].fix)]
    if probed.in_clear:
        text = f"{url} has no identity, and cluster.require_identity is set"
        return [failed("identity", text, "tracker.identity_dir at the tracker")]
    if line.wrong_secret:
        fix = RULES[Reason.WRONG_SECRET].fix
        return [failed("tracker", f"{url} has another cluster secret", fix)]
    if probed.proven or line.retry_after_s is not None:
        found.append(passed("tracker", f"{url} answers"))
        if probed.proven and (told := line.clock) is not None:
            found += _clock(url, told.unix_ms, told.asked_s, told.answered_s)
        if probed.proven and identity is not None:
            found.append(_renewal(url, renews=probed.renews))
        return found
    return [failed("tracker", f"{url} is no tracker of ours: {probed.why}", TRACKER_NAMED)]


@dataclass(frozen=True, slots=True)
class _Probed:
    """What came of one try."""

    line: ControlLine
    proven: bool
    in_clear: bool
    """It answered in clear to TLS."""
    renews: bool
    """It signs next certificates."""
    why: str


def _renewal(url: str, *, renews: bool) -> Finding:
    if renews:
        return passed("renewal", f"{url} renews this host's certificate")
    by_hand = "`p2pdist ca issue` before it ends, or tracker.ca_dir there"
    return passed("renewal", f"{url} renews no certificates: {by_hand}")


async def _probe_tracker(
    address: Address, secret: ClusterSecrets, identity: HostIdentity | None
) -> _Probed:
    """Raises OSError, which TimeoutError is as well, where nobody answers."""
    prober = _Prober()
    asked = (prober, secret, _myself(), shared_codecs())
    if identity is None:
        line, tls = ControlLine(*asked, proves=False), None
    else:
        line = ControlLine(*asked, proves=False, against=identity.against)
        tls = TlsTransport(line, identity.client, server_side=False)
    async with asyncio.timeout(REACH_S):
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: tls or line, sock=await connected(address))
        why = await prober.ended
    in_clear = tls is not None and tls.in_clear and line.retry_after_s is None
    return _Probed(line, prober.proven, in_clear, prober.renews, why)


def _identity_of(settings: Settings, role: Role) -> HostIdentity | None:
    """What daemons of this host speak TLS with, see `IdentityHolder.spoken`."""
    try:
        own = host_identity(settings, role)
    except ConfigError:
        return None
    ended = own is not None and own.says.fault_at(unix_s())
    return None if own is None or (ended and not own.required) else own


def _secret_of(path: Path | None) -> ClusterSecrets | None:
    """The cluster secrets; None where there is none to be had, which is another check's fault."""
    try:
        return read_secrets(path)
    except ConfigError:
        return None


def _myself() -> Member:
    return Member(HostId(secrets.token_hex(16)), Role.PEER, Place("doctor"))


class _Prober:
    """Ends its line as soon as the tracker has proven itself, so that it is never a host there."""

    def __init__(self) -> None:
        self.proven = False
        self.renews = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def line_up(self, line: ControlLine, session: Session) -> None:
        self.proven = session.member.role is Role.TRACKER
        self.renews = bool(session.features & FEATURE_RENEW)
        line.hang_up(CloseCode.GOODBYE)

    def take(self, line: ControlLine, message: FromTracker) -> None:
        line.abort()

    def line_lost(self, line: ControlLine, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


async def _check_proxy(url: str, settings: Settings, role: Role) -> list[Finding]:
    parts, identity = urlsplit(url), _identity_of(settings, role)
    timeout, scheme, context = aiohttp.ClientTimeout(total=REACH_S), parts.scheme, None
    if identity is not None and identity.required and scheme == "http":
        scheme, context = "https", identity.proxies
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            asked_s = time.monotonic()
            asked = session.get(f"{scheme}://{parts.netloc}/v2/", ssl=context or True)
            async with asked as answer:
                answered_s, headers = time.monotonic(), answer.headers.copy()
                body = await answer.content.read(LIST_BYTES_MAX)
                members_only = answer.headers.get(REASON) == ErrorReason.MEMBERS_ONLY
                listed = None if members_only else parse_registries(body)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        fix = f"is it running, and does the firewall let {parts.port} through?"
        return [failed("proxy", f"{url} does not answer: {reason}", fix, remote=True)]
    if members_only:
        text = f"{url} answers hosts with a certificate only"
        return [failed("proxy", text, fix_of(ErrorReason.MEMBERS_ONLY, ""))]
    if EXCHANGE_PORT not in headers:
        fix = "peer.proxies names p2pdist proxies, upstreams belong into [[upstream]]"
        return [failed("proxy", f"{url} is no p2pdist proxy", fix)]
    serves = "" if listed is None else f" and serves {registries_text(len(listed))}"
    found = [
        passed("proxy", f"{url} answers{serves}"),
        *_check_key(url, headers.get(KEY_ID, ""), settings),
    ]
    if role is Role.PEER:  # proxies of other datacenters ask such registries themselves
        found += check_private_layers(settings, role, parse_by_caller(body))
    secret = _secret_of(settings.cluster.secret_file)
    place = parts.hostname or "", headers[EXCHANGE_PORT]
    found.append(await _check_exchange(*place, secret, identity))
    try:
        date_s = parsedate_to_datetime(headers.get("Date", "")).timestamp() + DATE_ERROR_S
    except ValueError:
        return found
    unix_ms = max(0, round(date_s * 1000))
    return [*found, *_clock(url, unix_ms, asked_s - DATE_ERROR_S, answered_s + DATE_ERROR_S)]


def _check_key(url: str, told: str, settings: Settings) -> list[Finding]:
    """The proxy signs with a key that is believed here; nothing where either is not known."""
    try:
        believed = {key_id(key) for key in proxy_keys(settings)}
    except ConfigError:
        return []
    own = read_key_id(told)
    if own is None or not believed:
        return []
    if own in believed:
        return [passed("proxy key", f"{url} signs with a key that is believed")]
    text = f"{url} signs with the key {own.hex()}, which is not among cluster.proxy_keys"
    return [failed("proxy key", text, RULES[Reason.WRONG_KEY].fix)]


async def _check_exchange(
    host: str, port: str, secret: ClusterSecrets | None, identity: HostIdentity | None
) -> Finding:
    """Reach it and, where the secret is known, hear the proof of the same one."""
    certified = True
    try:
        address = Address(host, int(port))
        if secret is None:
            await _connect(address)
        else:
            own = identity is not None
            session = await probe(
                address, secret=secret, me=_myself(), timeout_s=REACH_S, identity=own
            )
            certified = not own or bool(session.features & IDENTITY)
    except WrongSecret:
        text = f"{host}:{port} has another cluster secret"
        return failed("exchange", text, RULES[Reason.WRONG_SECRET].fix)
    except LinkRefused as refusal:
        if refusal.reason == NO_IDENTITY:
            text = f"{host}:{port} takes hosts with a certificate only"
            return failed("exchange", text, RULES[Reason.IDENTITY_REFUSED].fix)
        fix = RULES[Reason.PROXIES_REFUSE].fix
        return warned("exchange", f"{host}:{port} keeps no link now: {refusal.reason}", fix)
    except (OSError, PeerFault, TimeoutError, ValueError) as error:
        fix = f"the firewall has to let TCP {port} through as well (docs/install.md)"
        text = f"{host}:{port} cannot be reached: {str(error) or 'no answer'}"
        return failed("exchange", text, fix, remote=True)
    if certified:
        return passed("exchange", f"{host}:{port} is reached")
    text = f"{host}:{port} has no certificate: links with it are in clear"
    if identity is not None and identity.required:
        text = f"{host}:{port} has no certificate, and cluster.require_identity is set"
        return failed("exchange", text, NO_CERTIFICATE_FIX, remote=True)
    return warned("exchange", text, NO_CERTIFICATE_FIX)


async def _connect(address: Address) -> None:
    """Raises OSError, which TimeoutError is as well, where nobody answers."""
    async with asyncio.timeout(REACH_S):
        sock = await connected(address)
    sock.close()


def _clock(url: str, unix_ms: int, asked_s: float, answered_s: float) -> list[Finding]:
    """Compare the clock of `url` with ours, less what the measurement may be wrong by."""
    book = ClockBook()
    book.heard("", url, unix_ms, asked_s=asked_s, answered_s=answered_s)
    fix = RULES[Reason.CLOCK_SKEW].fix
    found = []
    for skew in book.skews(unix_s(), time.monotonic()):
        if skew.beyond(SKEW_FAIL_S):
            found.append(failed("clock", str(skew), fix))
        elif skew.beyond(SKEW_TOLERATED_S):
            found.append(warned("clock", str(skew), fix))
        else:
            found.append(passed("clock", str(skew)))
    return found
