"""Row 31: a daemon has no descriptor left; what runs goes on, what is asked on open connections is
answered. New connections wait in the kernel's queue: to refuse them takes a descriptor, too."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.faults.scene import (
    Scene,
    assert_no_orphans,
    assert_served,
    assert_verified,
    read,
    reading,
    wait_for_share,
)
from tests.e2e.harness import mirror
from tests.e2e.harness.image import REPOSITORY, Blob
from tests.e2e.harness.p2p import ADMIN_PORTS, LOOPBACK, PEER_PORT, PROXY_PORT, Daemon
from tests.e2e.harness.processes import wait_until
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

DESCRIPTORS: Final = 64
# More than are free, so that the daemon has none left and the rest wait in the kernel's queue.
CONNECTIONS: Final = 80
# asyncio takes up accepting again after 1 s, the exchange after 0.1 s.
RECOVERED_S: Final = 5.0


@pytest.mark.parametrize("role", ["peer", "proxy"])
def test_a_daemon_without_descriptors_keeps_its_streams_and_recovers(
    slow_upstream: Scene, role: str
) -> None:
    scene = slow_upstream
    running, refused = scene.layer(0), scene.layer(1)
    with recorded(31, "no descriptors left (prlimit)", role) as record:
        peer = scene.peer("a")
        daemon = peer if role == "peer" else scene.proxy
        with (
            contextlib.closing(_registry_client(daemon)) as asker,
            contextlib.closing(_admin_client(daemon)) as admin,
            reading([peer], running) as pulls,
        ):
            wait_for_share(peer, running, 0.2)
            daemon.limit_descriptors(DESCRIPTORS)
            with _all_taken(daemon):
                manifest = _ask(asker, f"/v2/{REPOSITORY}/manifests/never-asked")
                page = _ask(admin, "/readyz")
                blob = _begin(asker, f"/v2/{REPOSITORY}/blobs/{refused.digest}")
                assert not pulls[0].done(), "the fault came too late to matter"
                survived = [pulls[0].result()]
            blob_outcome = _outcome(blob, refused)
        freed_s = time.monotonic()
        wait_until(lambda: _pings(daemon), "answer to a new connection", timeout_s=RECOVERED_S)
        recovered_s = time.monotonic() - freed_s
        recovered = read(peer, refused)

        assert_served(record, survived, running)
        assert_served(record, [recovered], refused)
        assert page.status == http.client.OK
        if role == "proxy":  # it could not ask upstream, and says whose fault that is
            assert (manifest.status, manifest.retry_after) == (503, "1")
            assert blob_outcome == "404 BLOB_UNKNOWN"
        else:  # its connection to the proxy is there already: upstream's own answer
            assert manifest.status == http.client.NOT_FOUND
            assert blob_outcome in ("served whole", "404 BLOB_UNKNOWN")
        record.outcome = (
            f"running stream unharmed; new manifest {manifest.status}, new blob {blob_outcome}, "
            f"admin {page.status}; new connections wait, and are answered {recovered_s:.1f} s after"
        )
        assert_verified(record, scene, [daemon])
        assert_no_orphans(record, scene, daemon)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    retry_after: str
    body: bytes


def _port(daemon: Daemon) -> tuple[str, int]:
    if daemon.role == "peer":
        return LOOPBACK, PEER_PORT
    return daemon.host.address, PROXY_PORT


def _registry_client(daemon: Daemon) -> http.client.HTTPConnection:
    """A connection to the registry port that is there before the fault."""
    connection = mirror.Mirror(daemon.host, *_port(daemon)).dial()
    assert _ask(connection, "/v2/").status == 200
    return connection


def _admin_client(daemon: Daemon) -> http.client.HTTPConnection:
    connection = mirror.Mirror(daemon.host, LOOPBACK, ADMIN_PORTS[daemon.role]).dial()
    assert _ask(connection, "/livez").status == 200
    return connection


def _ask(connection: http.client.HTTPConnection, path: str) -> Answer:
    response = _begin(connection, path)
    return Answer(response.status, response.headers.get("Retry-After", ""), response.read())


def _begin(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    """Return an answer whose body is still to be read."""
    connection.request("GET", path)
    return connection.getresponse()


def _outcome(response: http.client.HTTPResponse, blob: Blob) -> str:
    body = response.read()
    if response.status == http.client.OK:
        assert f"sha256:{hashlib.sha256(body).hexdigest()}" == blob.digest
        return "served whole"
    return f"{response.status} {json.loads(body)['errors'][0]['code']}"


def _pings(daemon: Daemon) -> bool:
    """Whether a connection that is made now is answered."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return mirror.get(daemon.host, *_port(daemon), "/v2/")[0] == http.client.OK
    return False


@contextlib.contextmanager
def _all_taken(daemon: Daemon) -> Iterator[None]:
    """Hold connections until the daemon has no descriptor left."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(contextlib.closing(daemon.host.connect(*_port(daemon))))
        wait_until(
            lambda: daemon.open_descriptors() >= DESCRIPTORS, "daemon without free descriptors"
        )
        yield
