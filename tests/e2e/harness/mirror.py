"""A registry client on a host: what a runtime asks of its mirror, without a runtime."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.harness.image import Blob
from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError

READ_BYTES: Final = 1 << 18
# The daemons promise a first byte within 5 s and no longer silence while a source exists.
SILENCE_S: Final = 30.0


def get(host: Host, address: str, port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET from `host`; raises OSError or HTTPException."""
    connection = _dial(host, address, port)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get_json(host: Host, address: str, port: int, path: str) -> Any:
    status, body = get(host, address, port, path)
    if status != http.client.OK:
        raise LabError(f"GET {path} on {host.name}: {status} {body[:200]!r}")
    return json.loads(body)


@dataclass(frozen=True, slots=True)
class Reading:
    """One GET of a blob, as its client saw it."""

    blob: Blob
    first_byte_s: float
    """From the request to the first byte of the body."""
    longest_gap_s: float
    """The longest silence after that."""
    seconds: float


class Mirror:
    """The `/v2/` endpoint at `address:port`, asked from `host`."""

    def __init__(self, host: Host, address: str, port: int) -> None:
        self._host = host
        self._address = address
        self._port = port

    def read_blob(
        self,
        repository: str,
        digest: str,
        *,
        stop_after: int | None = None,
        silence_s: float = SILENCE_S,
    ) -> Blob:
        """Read a blob and return the digest and size of what came.

        `stop_after`: hang up once so many bytes were read. `silence_s`: how long the client bears.
        Raises LabError for any answer but 200, OSError or HTTPException where the connection
        breaks.
        """
        return self.time_blob(repository, digest, stop_after=stop_after, silence_s=silence_s).blob

    def time_blob(
        self,
        repository: str,
        digest: str,
        *,
        stop_after: int | None = None,
        silence_s: float = SILENCE_S,
    ) -> Reading:
        """Do the same, and say how it went."""
        connection = self.dial()
        connection.sock.settimeout(silence_s)
        began_s = time.monotonic()
        try:
            connection.request("GET", f"/v2/{repository}/blobs/{digest}")
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise LabError(f"{digest}: {response.status} {response.read(200)!r}")
            return _read(response, stop_after, began_s)
        finally:
            connection.close()

    def dial(self) -> http.client.HTTPConnection:
        """Return a connection for several requests; the caller closes it."""
        return _dial(self._host, self._address, self._port)


def _read(response: http.client.HTTPResponse, stop_after: int | None, began_s: float) -> Reading:
    sha256, size_bytes, gaps_s = hashlib.sha256(), 0, []
    last_s = began_s
    while piece := response.read1(READ_BYTES):
        now_s = time.monotonic()
        gaps_s.append(now_s - last_s)
        last_s = now_s
        sha256.update(piece)
        size_bytes += len(piece)
        if stop_after is not None and size_bytes >= stop_after:
            break
    else:  # a read says nothing of a body that ends short
        missing = int(response.headers["Content-Length"]) - size_bytes
        if missing:
            raise http.client.IncompleteRead(b"", missing)
    blob = Blob(f"sha256:{sha256.hexdigest()}", size_bytes)
    first_byte_s, *later_s = gaps_s or [0.0]
    return Reading(blob, first_byte_s, max(later_s, default=0.0), time.monotonic() - began_s)


def _dial(host: Host, address: str, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(address, port)
    connection.sock = host.connect(address, port)
    connection.sock.settimeout(SILENCE_S)
    return connection
