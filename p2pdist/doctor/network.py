"""Checks over the network: own ports, trackers and proxies, clocks."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from p2pdist.doctor.findings import Finding, failed, passed, warned
from p2pdist.errors import ConfigError
from p2pdist.model.control import FromTracker
from p2pdist.model.control_wire import parse_tracker_url, shared_codecs
from p2pdist.model.handshake import Session
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.runtime.clock import unix_s
from p2pdist.runtime.control_line import ControlLine
from p2pdist.runtime.identity import read_secret
from p2pdist.settings import Settings

REACH_S: Final = 2.0
# Statements carry times: tags expire, and an open chunk map from the future is not believed.
SKEW_WARN_S: Final = 30.0
SKEW_FAIL_S: Final = 90.0
CLOCK_FIX: Final = "let the clocks follow one source (chrony, systemd-timesyncd)"


async def check_ports(settings: Settings, role: str) -> AsyncIterator[Finding]:
    """Each port that the daemon listens on is free, or held by a daemon of ours."""
    own: Any = getattr(settings, role)
    names = ["listen", "admin_listen"] + (["exchange_listen"] if role != "tracker" else [])
    running = await answers(own.admin_listen)
    for name in names:
        address: Address = getattr(own, name)
        setting = f"{role}.{name}"
        error = await asyncio.to_thread(_bind_error, address)
        if error is None:
            yield passed("port", f"{address} is free ({setting})")
        elif error.errno == errno.EADDRINUSE and running:
            yield passed("port", f"{address} is served by the running {role}")
        elif error.errno == errno.EADDRINUSE:
            fix = f"`ss -ltnp` says who; stop it or choose another with {setting}"
            yield failed("port", f"{address} is taken by something else ({setting})", fix)
        else:
            fix = f"{setting} needs an address of this host"
            yield failed("port", f"{address}: {error.strerror} ({setting})", fix)


def _bind_error(address: Address) -> OSError | None:
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    family, kind, proto, _, target = infos[0]
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(target)
        except OSError as error:
            return error
    return None


async def answers(admin: Address, path: str = "/livez") -> bool:
    """A daemon of ours says 200 at its admin port."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    target = Address(anywhere.get(admin.host, admin.host), admin.port)
    timeout = aiohttp.ClientTimeout(total=REACH_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{target}{path}") as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def check_others(settings: Settings, role: str) -> AsyncIterator[Finding]:
    """Trackers and proxies: reached, one of ours, clocks that agree."""
    own: Any = getattr(settings, role)
    secret_file = settings.cluster.secret_file
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
            *(_check_other(what, url, secret_file) for url in urls)
        ):
            for one in finding:
                yield one


async def _check_other(what: str, url: str, secret_file: Path | None) -> list[Finding]:
    if what == "tracker":
        return [await _check_tracker(url, secret_file)]
    return await _check_proxy(url)


async def _check_tracker(url: str, secret_file: Path | None) -> Finding:
    """Shake hands up to the tracker's proof: it shows that both know the same secret.

    Without a secret, which is another check's fault, any answer will do."""
    try:
        address = parse_tracker_url(url)
    except ValueError as error:
        return failed("tracker", f"{url} cannot be asked: {error}", "see docs/configuration.md")
    try:
        secret, known = read_secret(secret_file), True
    except ConfigError:
        secret, known = secrets.token_bytes(), False
    prober = _Prober()
    me = Member(HostId(secrets.token_hex(16)), Role.PEER, Place("doctor"))
    line = ControlLine(prober, secret, me, shared_codecs())
    try:
        async with asyncio.timeout(REACH_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: line, address.host, address.port)
            why = await prober.ended
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer"
        fix = f"is it running, and does the firewall let {address.port} through?"
        return failed("tracker", f"{url} does not answer: {reason}", fix, remote=True)
    if prober.proven or line.retry_after_s is not None or not known:
        return passed("tracker", f"{url} answers")
    fix = "it must be a p2pdist tracker with the same cluster.secret_file"
    return failed("tracker", f"{url} is no tracker of ours: {why}", fix)


class _Prober:
    """Ends its line as soon as the tracker has proven itself, so that it is never a host there."""

    def __init__(self) -> None:
        self.proven = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def line_up(self, line: ControlLine, session: Session) -> None:
        self.proven = session.member.role is Role.TRACKER
        line.abort()

    def take(self, line: ControlLine, message: FromTracker) -> None:
        line.abort()

    def line_lost(self, line: ControlLine, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


async def _check_proxy(url: str) -> list[Finding]:
    parts = urlsplit(url)
    timeout = aiohttp.ClientTimeout(total=REACH_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            before_s = unix_s()
            async with session.get(f"{parts.scheme}://{parts.netloc}/v2/") as answer:
                there, headers = unix_s(), dict(answer.headers)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        fix = f"is it running, and does the firewall let {parts.port} through?"
        return [failed("proxy", f"{url} does not answer: {reason}", fix, remote=True)]
    if "P2pdist-Exchange-Port" not in headers:
        fix = "peer.proxies names p2pdist proxies, upstreams belong into [[upstream]]"
        return [failed("proxy", f"{url} is no p2pdist proxy", fix)]
    found = [passed("proxy", f"{url} answers")]
    found.append(await _check_exchange(parts.hostname or "", headers))
    return [*found, *_clock(url, headers.get("Date"), (before_s + there) / 2)]


async def _check_exchange(host: str, headers: dict[str, str]) -> Finding:
    port = headers["P2pdist-Exchange-Port"]
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError, ValueError) as error:
        fix = f"the firewall has to let TCP {port} through as well (docs/install.md)"
        text = f"{host}:{port} cannot be reached: {str(error) or 'no answer'}"
        return failed("exchange", text, fix, remote=True)
    writer.close()
    return passed("exchange", f"{host}:{port} is reached")


def _clock(url: str, date: str | None, here_s: float) -> list[Finding]:
    """Compare clocks; `Date` has whole seconds, so half of one is nothing."""
    try:
        skew_s = abs(parsedate_to_datetime(date or "").timestamp() + 0.5 - here_s)
    except (ValueError, TypeError):
        return []
    text = f"{skew_s:.0f} s apart from {url}"
    if skew_s > SKEW_FAIL_S:
        return [failed("clock", text, CLOCK_FIX)]
    return [warned("clock", text, CLOCK_FIX) if skew_s > SKEW_WARN_S else passed("clock", text)]
