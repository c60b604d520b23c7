from __future__ import annotations

import pytest

from p2pdist.exchange.frames import Request
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import MapId, RequestId, digest_of
from p2pdist.peer.server import whole_chunks

# Five chunks of 100 bytes, the last one of 40.
GEOMETRY = Geometry(440, 100)


def run(first: int, count: int) -> Request:
    return Request(RequestId(1), digest_of(b"layer"), MapId(b"m" * 16), first, count)


@pytest.mark.parametrize(
    ("nbytes", "sent"), [(0, 0), (99, 0), (100, 0b00100), (239, 0b01100), (240, 0b11100)]
)
def test_a_chunk_counts_as_sent_once_its_last_byte_is(nbytes: int, sent: int) -> None:
    assert whole_chunks(run(2, 3), GEOMETRY, nbytes) == sent
