"""One connection of our HTTP listeners: how long it may take, and what is said and logged of a
request that is none: nothing of what was sent.

aiohttp's own protocol logs such a request with its headers, credentials and all, and quotes it in
the answer; and it waits for the rest of a request for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs, http_exceptions, web

from p2pdist.oci.errors import error_body
from p2pdist.process import audit, logs
from p2pdist.process.tls import TlsRefused

log = logging.getLogger(__name__)

# All that may come before a request is whole, but for what one read brings more: tokens of
# registries with many scopes have tens of kilobytes, and one field may be nearly all of it.
HEAD_BYTES_MAX: Final = 64 << 10
FIELDS_MAX: Final = 256

# From a connection's start, or the first byte of a further request, until its head is whole.
HEAD_S: Final = 10.0
# Go's clients give an idle connection up after 90 s: theirs is to be the first word.
KEEP_ALIVE_S: Final = 120.0

DROPPED: Final = ("slow", "crowded")

dropped_total: Final[Counter[str]] = Counter(dict.fromkeys(DROPPED, 0))
"""Connections to all listeners of this process that were ended, by reason: `slow`, no whole head in
time; `crowded`, their address had more of them than others."""

REASONS: Final = ("request_line", "header", "too_long", "body")

malformed_total: Final[Counter[str]] = Counter(dict.fromkeys(REASONS, 0))
"""Malformed requests to all listeners of this process, by reason."""


def reason_of(error: BaseException | None) -> str | None:
    """What is wrong with a request, one of `REASONS`; None: it is not the request."""
    match error:
        case http_exceptions.LineTooLong():
            return "too_long"
        case http_exceptions.BadStatusLine() | http_exceptions.InvalidURLError():
            return "request_line"
        case web.RequestPayloadError() | http_exceptions.PayloadEncodingError():
            return "body"
        case http_exceptions.HttpProcessingError():
            return "header"
        case _:
            return None


class HttpProtocol(web.RequestHandler):
    """`sparing` and `refusals` are shared by the connections of a listener; `over` hears of the end
    of this one."""

    __slots__ = ("_head_bytes", "_head_timer", "_over", "_refusals", "_sparing", "_unwanted")

    def __init__(
        self,
        server: web.Server,
        sparing: logs.Sparing,
        refusals: audit.Refusals,
        over: Callable[[HttpProtocol], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            max_field_size=HEAD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            keepalive_timeout=KEEP_ALIVE_S,
        )
        self._sparing = sparing
        self._refusals = refusals
        self._over = over
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unwanted = False

    @property
    def unwanted(self) -> bool:
        """It is about to end, without a request."""
        return self._unwanted

    def crowded_out(self) -> None:
        """End it: another address has its place."""
        self._unwanted = True
        if self.transport is not None:
            self._drop("crowded")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()
        if self._unwanted:
            self._drop("crowded")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_is_whole()
        if isinstance(exc, TlsRefused):
            self._tls_refused(str(exc))
        super().connection_lost(exc)
        self._over(self)

    def _tls_refused(self, reason: str) -> None:
        self._refusals.event(
            audit.log, logging.WARNING, "tls.refused", who=audit.NOBODY, peer=self._host(),
            reason=reason,
        )  # fmt: skip

    def _host(self) -> str:
        return str(self.peername[0]) if isinstance(self.peername, tuple) else ""

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_S, self._drop, "slow")

    def _head_is_whole(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _drop(self, reason: str) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        dropped_total[reason] += 1
        fields = {"reason": reason, "peer": self._host()}
        self._sparing.event(log, logging.WARNING, "http.dropped", **fields)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        waiting = self._waiter  # for a request to be whole
        super().data_received(data)
        if waiting is None or waiting.done():
            self._head_is_whole()
            return
        self._await_head()
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX and self.transport is not None:
            self._note("too_long", self.peername)
            self.transport.write(_HEAD_TOO_LARGE)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        reason = reason_of(exc)
        if reason is not None:
            self._note(reason, self.peername)
            status, text = 400, "malformed request"
        else:
            self.log_exception(exc_info=exc)
            text = "internal error"
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        answer = web.Response(
            status=status,
            body=error_body("UNSUPPORTED", text),
            headers={hdrs.SERVER: "p2pdist", hdrs.CONTENT_TYPE: "application/json"},
        )
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A fault of ours; the arguments may quote the request."""
        exc = kw.get("exc_info")
        error = exc if isinstance(exc, BaseException) else None
        if reason_of(error) is not None:
            return  # of the request after all, which was noted when it was answered
        self._sparing.event(log, logging.ERROR, "http.failed", exc_info=error)

    def _note(self, reason: str, peer: object) -> None:
        malformed_total[reason] += 1
        host = peer[0] if isinstance(peer, tuple) else ""
        self._sparing.event(log, logging.WARNING, "http.malformed", reason=reason, peer=host)


_BODY: Final = error_body("UNSUPPORTED", "request header too large")
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nServer: p2pdist\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_BODY), _BODY)
)
