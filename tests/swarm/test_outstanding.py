"""Who hears of the answer to a request, and when the table forgets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from p2pdist.exchange.link import Link
from p2pdist.model.ids import RequestId
from p2pdist.swarm.outstanding import RequestTable

A, B = (cast("Link", object()) for _ in range(2))


@dataclass
class Blob:
    heard: list[Any] = field(default_factory=list)

    def arrived(self, link: Link, request_id: RequestId, chunk: int, data: bytearray) -> None: ...

    def refused(self, link: Link, request_id: RequestId, *, gone: bool) -> None: ...


def test_a_request_is_forgotten_with_its_last_chunk() -> None:
    table, blob = RequestTable(), Blob()
    table.expect(RequestId(1), blob, A, 2)
    assert table.chunk_came(A, RequestId(1)) is blob
    assert len(table) == 1
    assert table.chunk_came(A, RequestId(1)) is blob
    assert len(table) == 0
    assert table.chunk_came(A, RequestId(1)) is None


def test_only_the_link_that_was_asked_answers() -> None:
    table, blob = RequestTable(), Blob()
    table.expect(RequestId(1), blob, A, 1)
    assert table.chunk_came(B, RequestId(1)) is None
    assert table.refused(B, RequestId(1)) is None
    assert table.refused(A, RequestId(1)) is blob
    assert len(table) == 0


def test_a_withdrawn_request_has_no_answer() -> None:
    table = RequestTable()
    table.expect(RequestId(1), Blob(), A, 1)
    table.withdraw(RequestId(1))
    table.withdraw(RequestId(1))
    assert table.chunk_came(A, RequestId(1)) is None


def test_the_end_of_a_link_ends_what_it_was_asked_for() -> None:
    table, blob = RequestTable(), Blob()
    table.expect(RequestId(1), blob, A, 1)
    table.expect(RequestId(2), blob, B, 1)
    table.link_down(A)
    assert len(table) == 1
    assert table.chunk_came(B, RequestId(2)) is blob


def test_ids_differ() -> None:
    table = RequestTable()
    assert len({table.new_id() for _ in range(100)}) == 100
