"""An HTTP client that sends a target as it stands: yarl and friends would normalise it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 20.0

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def error_codes(self) -> list[str]:
        return [error["code"] for error in self.json()["errors"]]

    def json(self) -> Any:
        return json.loads(self.body)


async def fetch(
    base_url: str, target: str, *, method: str = "GET", headers: Headers = ()
) -> Answer:
    """One request on a connection of its own; `headers` may repeat a name."""
    return await asyncio.to_thread(_fetch, base_url, target, method, tuple(headers))


def _fetch(base_url: str, target: str, method: str, headers: Headers) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=_TIMEOUT_S)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for key, value in headers:
            connection.putheader(key, value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


async def raw_exchange(base_url: str, sent: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    url = urlsplit(base_url)
    async with asyncio.timeout(_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            writer.write(sent)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()
            await writer.wait_closed()
