"""Ranges of a blob from the mirror of this host, for threads: the standard library's client, which
is there in 10 ms when a worker starts again."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import threading
import time
from typing import Final
from urllib.parse import quote, urlsplit

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.registry.ports import DEMAND_AGAIN, DEMAND_HEADER

log = logging.getLogger(__name__)

# The mirror looks for other sources for a minute; a daemon that restarts is back within that, too.
PATIENCE_S: Final = 60.0
ANSWER_S: Final = 70.0
PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0


class MirrorRanges:
    elsewhere = True

    def __init__(
        self, endpoint: str, name: ImageName, digest: Digest, *, patience_s: float = PATIENCE_S
    ) -> None:
        """`endpoint`: the base URL of a mirror, without TLS."""
        place = urlsplit(endpoint)
        self._address = place.hostname or "127.0.0.1", place.port or 80
        self._target = f"/v2/{name.repository}/blobs/{digest}?ns={quote(name.upstream)}"
        self._digest = digest
        self._patience_s = patience_s
        self._mine = threading.local()
        self._connections: set[http.client.HTTPConnection] = set()

    def close(self) -> None:
        """Close the connections of all threads, none of which reads any more."""
        for connection in list(self._connections):
            connection.close()
        self._connections.clear()

    def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        """Ask until it comes, for `patience_s`; then raise OSError (EIO). `again`: what came before
        was wrong, and the mirror is to look at what it has."""
        until_s, pause_s, why = time.monotonic() + self._patience_s, PAUSE_S, ""
        while True:
            try:
                return self._ask(start, stop, again=again)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                why = str(error) or type(error).__name__
            if time.monotonic() + pause_s >= until_s:
                break
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
        logs.event(
            log, logging.ERROR, "span.not_brought", digest=self._digest, start=start, error=why
        )
        raise OSError(errno.EIO, why)

    def _ask(self, start: int, stop: int, *, again: bool) -> bytes:
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(*self._address, timeout=ANSWER_S)
            self._mine.connection = connection
            self._connections.add(connection)
        demand = DEMAND_AGAIN if again else "1"
        headers = {"Range": f"bytes={start}-{stop - 1}", DEMAND_HEADER: demand}
        connection.request("GET", self._target, headers=headers)
        answer = connection.getresponse()
        if answer.status != 206:
            text = answer.read(1000)
            raise http.client.HTTPException(f"the mirror answered {answer.status}: {text!r}")
        data = bytes(answer.read(stop - start))
        if len(data) != stop - start or answer.read(1):
            raise http.client.HTTPException(f"{len(data)} bytes of {stop - start}")
        return data

    def _drop(self) -> None:
        connection, self._mine.connection = getattr(self._mine, "connection", None), None
        if connection is not None:
            self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.close()
