"""Ranges from a mirror that answers late, wrongly, or not at all."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import DEMAND_AGAIN
from p2pdist.streaming.mirror_ranges import MirrorRanges

BODY = bytes(range(256)) * 40
DIGEST = digest_of(BODY)
NAME = ImageName("docker.io", "library/app")


class Mirror(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: ClassVar[list[str]] = []
    seen: ClassVar[list[tuple[str, str, str]]] = []

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.seen.append((self.path, wanted, self.headers["P2pdist-Demand"]))
        start, stop = wanted.removeprefix("bytes=").split("-")
        data, status = BODY[int(start) : int(stop) + 1], 206
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "404":
            data, status = b"{}", 404
        elif fault == "whole":
            data, status = BODY, 200
        elif fault == "short":
            data = data[:-1]
        elif fault == "long":
            data += b"x"
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if fault != "cut" else data[:20])
        if fault == "cut":
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.faults.clear()
    Mirror.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ranges(mirror: str) -> Iterator[MirrorRanges]:
    made = MirrorRanges(mirror, NAME, DIGEST)
    yield made
    made.close()


def test_a_range_is_asked_for_as_demand_by_the_name_of_the_image(ranges: MirrorRanges) -> None:
    assert ranges.read_range(10, 300) == BODY[10:300]
    assert ranges.read_range(0, 1) == BODY[:1]
    assert Mirror.seen == [
        (f"/v2/library/app/blobs/{DIGEST}?ns=docker.io", "bytes=10-299", "1"),
        (f"/v2/library/app/blobs/{DIGEST}?ns=docker.io", "bytes=0-0", "1"),
    ]


def test_a_mirror_that_was_wrong_is_told(ranges: MirrorRanges) -> None:
    assert ranges.read_range(10, 300, again=True) == BODY[10:300]
    assert [demand for _, _, demand in Mirror.seen] == [DEMAND_AGAIN]


@pytest.mark.parametrize("fault", ["404", "whole", "short", "long", "cut"])
def test_what_is_no_answer_is_asked_for_again(ranges: MirrorRanges, fault: str) -> None:
    Mirror.faults.append(fault)
    assert ranges.read_range(5, 500) == BODY[5:500]
    assert len(Mirror.seen) == 2


def test_a_mirror_that_stays_away_is_an_error_in_the_end() -> None:
    with pytest.raises(OSError, match="refused") as caught:
        MirrorRanges("http://127.0.0.1:1", NAME, DIGEST, patience_s=0.3).read_range(0, 5)
    assert caught.value.errno == errno.EIO


def test_a_mirror_that_keeps_refusing_is_an_error_in_the_end(mirror: str) -> None:
    Mirror.faults.extend(["404"] * 100)
    with pytest.raises(OSError, match="answered 404") as caught:
        MirrorRanges(mirror, NAME, DIGEST, patience_s=0.3).read_range(0, 5)
    assert caught.value.errno == errno.EIO
    assert len(Mirror.seen) > 1


def test_a_mirror_that_comes_back_is_waited_for() -> None:
    Mirror.faults.clear()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    ranges = MirrorRanges(f"http://127.0.0.1:{address[1]}", NAME, DIGEST, patience_s=30)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ranges.read_range, 5, 500)
        with pytest.raises(TimeoutError):
            reading.result(0.3)
        server = ThreadingHTTPServer(address, Mirror)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        assert reading.result(30) == BODY[5:500]
    ranges.close()
    server.shutdown()
    server.server_close()
    thread.join()
