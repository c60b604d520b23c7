"""A registry client on a host: what a runtime asks of its mirror, without a runtime."""

from __future__ import annotations

import hashlib
import http.client
import json
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
        connection = _dial(self._host, self._address, self._port)
        connection.sock.settimeout(silence_s)
        try:
            connection.request("GET", f"/v2/{repository}/blobs/{digest}")
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise LabError(f"{digest}: {response.status} {response.read(200)!r}")
            return _read(response, stop_after)
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse, stop_after: int | None) -> Blob:
    sha256, size_bytes = hashlib.sha256(), 0
    while piece := response.read(READ_BYTES):
        sha256.update(piece)
        size_bytes += len(piece)
        if stop_after is not None and size_bytes >= stop_after:
            break
    else:  # read(n) says nothing of a body that ends short
        missing = int(response.headers["Content-Length"]) - size_bytes
        if missing:
            raise http.client.IncompleteRead(b"", missing)
    return Blob(f"sha256:{sha256.hexdigest()}", size_bytes)


def _dial(host: Host, address: str, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(address, port)
    connection.sock = host.connect(address, port)
    connection.sock.settimeout(SILENCE_S)
    return connection
