"""Requests to upstreams: which addresses may be reached, and redirects followed by hand.

Redirects, token realms and page links come from the other side. Each hop is checked after its name
was resolved, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.private_places import PrivatePlace, Reach, parse_ip
from p2pdist.process import logs
from p2pdist.registry.ports import USER_AGENT
from p2pdist.registry.reading.answer_head import HEAD_LIMITS, AnswerHeadTooLong, BoundedConnector
from p2pdist.registry.reading.credentials import Credentials
from p2pdist.registry.reading.lasting_resolver import LastingResolver
from p2pdist.registry.reading.net_errors import cause
from p2pdist.registry.reading.tls import UpstreamTls, system_context

log = logging.getLogger(__name__)

Access = Literal["public", "private", "shared", "passthrough"]

# Registry contract 4.2: at most 10 hops, as Go's net/http.
REDIRECTS_MAX: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DNS_TTL_S: Final = 10
# 300 parallel bodies per host are far above what one proxy asks for; the rest queue.
_CONNECTIONS_MAX: Final = 512
_CONNECTIONS_PER_HOST_MAX: Final = 300
# One chunk of the smallest geometry; aiohttp pauses the socket at twice as much.
_READ_BUFFER_BYTES: Final = 256 * 1024
_READ_BUFFER_BOUNDED_BYTES: Final = 16 * 1024

_UNCONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@dataclass(frozen=True, slots=True)
class UpstreamEntry:
    """One registry that may be read, as the operator configured it."""

    host: str
    """Canonical name, such as `docker.io`."""
    url: str
    """Base, such as `https://registry-1.docker.io`."""
    credentials: Credentials | None = field(default=None, repr=False, compare=False)
    tls: UpstreamTls | None = field(default=None, repr=False, compare=False)
    """None: the system's certificates, and none of ours."""
    access: Access = "public"
    """`shared`: what our credentials can read may be served to everybody here. `passthrough`: it is
    read with the credentials of each caller, for that one."""
    auth_hosts: tuple[str, ...] = ()
    """Further hosts that token realms may name."""
    allow_private: tuple[PrivatePlace, ...] = ()
    """Private and loopback places that it may lead us to."""
    concurrency: int = 0
    """How many layers to read from it at a time; 0: no limit of its own."""

    @property
    def has_account(self) -> bool:
        """Whether it may let us read what it shows not to everybody."""
        return self.credentials is not None or (self.tls is not None and self.tls.shows_certificate)

    @property
    def by_caller(self) -> bool:
        """Whether it is asked with the credentials of each caller."""
        return self.access == "passthrough"

    @property
    def asker(self) -> str:
        """Who asks it, for people."""
        if self.by_caller:
            return "the caller"
        return "the proxy's account" if self.has_account else "a request without an account"

    @property
    def reach(self) -> Reach:
        base = URL(self.url)
        return Reach(base.host or "", base.port or 0, self.allow_private)

    @property
    def servable(self) -> bool:
        """Whether what is read here may be given to others."""
        if self.access in ("private", "passthrough"):
            return False
        return not self.has_account or self.access == "shared"


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """Seconds; registry contract 3.7 and fault matrix section 7."""

    connect_s: float = 5.0
    headers_s: float = 10.0
    idle_s: float = 4.0
    """A body may stand still so long: its reader is served again within 5 s (contract 3.7)."""
    question_s: float = 8.0
    """All tries for one manifest or one size together."""


class BadAnswer(UpstreamError):
    """The upstream answered against the rules: asking again will not help."""

    def __init__(self, message: str, reason: ErrorReason = ErrorReason.REGISTRY_ERROR) -> None:
        super().__init__(message, status=502, reason=reason)


class _PrivatePlace(OSError):
    """All addresses of a name are such that must not be reached."""


class _CheckedResolver(AbstractResolver):
    """Resolves names and leaves out the addresses that must not be reached."""

    def __init__(self, inner: AbstractResolver, reach: Reach) -> None:
        self._inner = inner
        self._reach = reach

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [result for result in found if self._allowed(host, port, result["host"])]
        if not allowed:
            raise _PrivatePlace(f"{host} has no address that may be reached (see allow_private)")
        return allowed

    def _allowed(self, host: str, port: int, text: str) -> bool:
        address = parse_ip(text)
        return address is not None and self._reach.allows(host, port, address)

    async def close(self) -> None:
        """The inner one is shared."""


_receive_buffer_bytes: ContextVar[int | None] = ContextVar("receive buffer", default=None)


@contextmanager
def receive_buffer(nbytes: int | None) -> Iterator[None]:
    """Let sources that are asked in this block send at most about `nbytes` ahead of what was read;
    None: as much as the system allows.

    The buffer has to be set before a connection is made: the first megabytes of a body come as fast
    as the line is otherwise. So such requests have connections of their own, which are not kept.
    """
    token = _receive_buffer_bytes.set(nbytes)
    try:
        yield
    finally:
        _receive_buffer_bytes.reset(token)


def _socket_of(
    address: tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]],
) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    if (nbytes := _receive_buffer_bytes.get()) is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, nbytes)
    return made


class UpstreamNet:
    """Client sessions of each upstream, with and without a bound on what sources may send ahead
    (`receive_buffer`): a connection is never shared by upstreams that may reach different places.
    """

    def __init__(self, timeouts: UpstreamTimeouts, resolver: AbstractResolver | None) -> None:
        """Must be called inside of a running loop; `resolver` replaces DNS."""
        self._timeouts = timeouts
        self.resolver = LastingResolver(resolver or aiohttp.ThreadedResolver())
        self._sessions: dict[tuple[str, bool], aiohttp.ClientSession] = {}
        """By upstream, and whether bounded; made with the first request."""

    async def close(self) -> None:
        await self.resolver.close()
        for session in self._sessions.values():
            await session.close()

    async def follow(
        self,
        entry: UpstreamEntry,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        authorization: str | None,
    ) -> aiohttp.ClientResponse:
        """Ask `url`, go where redirects lead, and return the last answer unread.

        `authorization` goes to the first hop's origin only, and to nobody after another was seen.
        The caller closes the answer. Raises UpstreamError without a status where there is none.
        """
        target = parse_url(url)
        origin = target.origin()
        trusted = True
        for _ in range(REDIRECTS_MAX + 1):
            trusted = trusted and target.origin() == origin
            sent = dict(headers)
            if trusted and authorization is not None:
                sent[hdrs.AUTHORIZATION] = authorization
            response = await self.ask(entry, method, target, sent)
            location = response.headers.get(hdrs.LOCATION)
            if response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            target = _next_hop(entry, target, location)
        raise BadAnswer(f"{entry.host}: more than {REDIRECTS_MAX} redirects")

    async def ask(
        self,
        entry: UpstreamEntry,
        method: str,
        target: URL,
        headers: Mapping[str, str],
        *,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """One request, no redirects followed."""
        _check_literal(entry, target)
        session = self._session(entry)
        place = target.host or "", target.port or 0
        tls = system_context() if entry.tls is None else entry.tls.context(*place)
        wait_s = self._timeouts.connect_s + self._timeouts.headers_s
        ask = partial(
            session.request,
            method,
            target,
            headers=headers,
            data=form,
            allow_redirects=False,
            ssl=tls,
        )
        try:
            async with asyncio.timeout(wait_s):
                try:
                    return await ask()
                except _UNCONNECTED:  # so nothing was sent
                    if not await self._moved(target):
                        raise
                return await ask()
        except TimeoutError:
            raise UpstreamError(f"{target.host} did not answer within {wait_s} s") from None
        except (AnswerHeadTooLong, aiohttp.ClientResponseError) as error:
            raise BadAnswer(f"{target.host} gives no HTTP answer: {cause(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            # The error's own text may quote a presigned URL.
            logs.event(
                log, logging.INFO, "upstream.unreachable", host=target.host, error=cause(error)
            )
            text = f"{target.host} cannot be reached: {cause(error)}"
            raise UpstreamError(text, reason=_reason_of(error)) from None

    async def _moved(self, target: URL) -> bool:
        """Whether the host of `target` is to be found at another address now; no session asks the
        former one again."""
        host, port = target.host, target.port
        if host is None or port is None or parse_ip(host) is not None:
            return False
        if not await self.resolver.moved(host, port):
            return False
        for session in self._sessions.values():
            if isinstance(session.connector, aiohttp.TCPConnector):
                session.connector.clear_dns_cache(host, port)
        logs.event(log, logging.INFO, "upstream.moved", host=host)
        return True

    def _session(self, entry: UpstreamEntry) -> aiohttp.ClientSession:
        bounded = _receive_buffer_bytes.get() is not None
        session = self._sessions.get((entry.host, bounded))
        if session is None:
            session = _new_session(self._timeouts, self.resolver, entry.reach, bounded=bounded)
            self._sessions[entry.host, bounded] = session
        return session


def _check_literal(entry: UpstreamEntry, target: URL) -> None:
    """Raise BadAnswer for an address that must not be reached and that no resolver sees."""
    host, port = target.host or "", target.port or 0
    address = parse_ip(host)
    if address is None or entry.reach.allows(host, port, address):
        return
    logs.event(
        log, logging.WARNING, "upstream.private_place", upstream=entry.host, host=host, port=port
    )
    raise BadAnswer(
        f"{entry.host} leads to {host} port {port}, which must not be reached (see allow_private)",
        ErrorReason.REGISTRY_PRIVATE,
    )


def _next_hop(entry: UpstreamEntry, here: URL, location: str) -> URL:
    """Where a redirect leads; raise BadAnswer for one that gives up encryption.

    A tag is believed because its registry proved who it is: what comes after a hop in the clear is
    anybody's word.
    """
    target = parse_url(location, base=here)
    if here.scheme == "https" and target.scheme == "http":
        logs.event(
            log, logging.WARNING, "upstream.downgrade", upstream=entry.host, host=target.host
        )
        raise BadAnswer(f"{entry.host} leads from https to http")
    return target


def parse_url(text: str, base: URL | None = None) -> URL:
    """Parse an URL as it stands: quoting it anew would break presigned queries."""
    try:
        url = URL(text, encoded=True)
        url = base.join(url) if base is not None else url
        if url.scheme in ("http", "https") and url.host and url.user is None:
            return url
    except ValueError:
        pass
    raise BadAnswer("an URL that is no plain http or https URL")


def _new_session(
    timeouts: UpstreamTimeouts, resolver: AbstractResolver, reach: Reach, *, bounded: bool
) -> aiohttp.ClientSession:
    connector = BoundedConnector(
        resolver=_CheckedResolver(resolver, reach),
        ttl_dns_cache=_DNS_TTL_S,
        limit=_CONNECTIONS_MAX,
        limit_per_host=_CONNECTIONS_PER_HOST_MAX,
        force_close=bounded,
        socket_factory=_socket_of if bounded else None,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER_BOUNDED_BYTES if bounded else _READ_BUFFER_BYTES,
        headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: USER_AGENT},
        **HEAD_LIMITS,
    )


def exhausted(error: Exception) -> bool:
    """This host has no descriptor left: whoever was to be asked was not."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _reason_of(error: Exception) -> ErrorReason:
    """Why there is no answer: aiohttp wraps what the resolver, TLS and the system said."""
    within = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if exhausted(error):
        return ErrorReason.EXHAUSTED
    if isinstance(within, _PrivatePlace):
        return ErrorReason.REGISTRY_PRIVATE
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ErrorReason.REGISTRY_NAME
    if isinstance(error, aiohttp.ClientSSLError) or isinstance(within, ssl.SSLError):
        return ErrorReason.REGISTRY_TLS
    return ErrorReason.REGISTRY_DOWN
