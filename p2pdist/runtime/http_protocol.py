"""What our HTTP listeners say and log of a request that is none: nothing of what was sent.

aiohttp's own protocol logs such a request with its headers, credentials and all, and quotes it in
the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Final

from aiohttp import hdrs, http_exceptions, web

from p2pdist.oci.errors import error_body
from p2pdist.runtime import logs

log = logging.getLogger(__name__)

# Tokens of registries with many scopes have tens of kilobytes.
FIELD_BYTES_MAX: Final = 64 << 10
# All that may come before a request is whole, but for what one read brings more.
HEAD_BYTES_MAX: Final = 128 << 10

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
    """One connection. `sparing` is shared by those of a listener."""

    __slots__ = ("_head_bytes", "_sparing")

    def __init__(
        self, server: web.Server, sparing: logs.Sparing, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(server, loop=loop, access_log=None, max_field_size=FIELD_BYTES_MAX)  # type: ignore[arg-type]
        self._sparing = sparing
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        waiting = self._waiter  # for a request to be whole
        super().data_received(data)
        if waiting is None or waiting.done():
            self._head_bytes = 0
            return
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
