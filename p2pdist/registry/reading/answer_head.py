"""How much of an answer may come before its body. aiohttp bounds each field, but not all of them.

Presigned URLs, policies and security headers of cloud registries have tens of kilobytes; Go's
clients take a megabyte.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final, TypedDict

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

# Status line, fields, and informational answers before them.
HEAD_BYTES_MAX: Final = 64 << 10
_FIELDS_MAX: Final = 1024  # of 3 bytes or more


class HeadLimits(TypedDict):
    """What `aiohttp.ClientSession` wants to know."""

    max_line_size: int
    max_field_size: int
    max_headers: int


HEAD_LIMITS: Final = HeadLimits(
    max_line_size=HEAD_BYTES_MAX, max_field_size=HEAD_BYTES_MAX, max_headers=_FIELDS_MAX
)


class AnswerHeadTooLong(aiohttp.ClientConnectionError):
    """The source sent more than `HEAD_BYTES_MAX` before a body."""


class BoundedHead(ResponseHandler):
    """Ends a connection whose answer does not begin for too many bytes; what one read brings more
    is all that is held beyond them."""

    _head_bytes = 0
    _head_is_whole = True

    def set_response_params(self, **params: Any) -> None:
        """Called with each request."""
        self._head_bytes, self._head_is_whole = 0, False
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Called with each head that is whole; an informational one is followed by another."""
        self._head_is_whole = data[0].code >= 200
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_is_whole:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX and self.transport is not None:
            self.transport.abort()
            self.set_exception(AnswerHeadTooLong())


class BoundedConnector(aiohttp.TCPConnector):
    """Must be made inside of a running loop."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        loop = asyncio.get_running_loop()
        make: Callable[..., ResponseHandler] = BoundedHead
        self._factory = functools.partial(make, loop=loop)
