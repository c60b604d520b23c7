"""Who hears of the answer to a request, and when the table forgets it."""

from __future__ import annotations

from p2pdist.model.ids import RequestId, digest_of
from p2pdist.swarm.core.request_table import RequestTable
from tests.swarm.core.hosts import link_to

A, B = link_to("a"), link_to("b")
BLOB = digest_of(b"layer")


def test_a_request_is_forgotten_with_its_last_chunk() -> None:
    table = RequestTable()
    table.expect(RequestId(1), BLOB, A, 2)
    assert table.chunk_came(A, RequestId(1)) == BLOB
    assert len(table) == 1
    assert table.chunk_came(A, RequestId(1)) == BLOB
    assert len(table) == 0
    assert table.chunk_came(A, RequestId(1)) is None


def test_only_the_link_that_was_asked_answers() -> None:
    table = RequestTable()
    table.expect(RequestId(1), BLOB, A, 1)
    assert table.chunk_came(B, RequestId(1)) is None
    assert table.refused(B, RequestId(1)) is None
    assert table.refused(A, RequestId(1)) == BLOB
    assert len(table) == 0


def test_a_withdrawn_request_has_no_answer() -> None:
    table = RequestTable()
    table.expect(RequestId(1), BLOB, A, 1)
    table.withdraw(RequestId(1))
    table.withdraw(RequestId(1))
    assert table.chunk_came(A, RequestId(1)) is None


def test_the_end_of_a_link_ends_what_it_was_asked_for() -> None:
    table = RequestTable()
    table.expect(RequestId(1), BLOB, A, 1)
    table.expect(RequestId(2), BLOB, B, 1)
    table.link_down(A)
    assert len(table) == 1
    assert table.chunk_came(B, RequestId(2)) == BLOB


def test_ids_differ() -> None:
    table = RequestTable()
    assert len({table.new_id() for _ in range(100)}) == 100
