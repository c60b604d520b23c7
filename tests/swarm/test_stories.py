"""The admin port tells stories to its own host only, and never more than fits."""

from __future__ import annotations

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from p2pdist.model.ids import Digest, digest_of
from p2pdist.swarm.core.event_log import BLOBS_MAX, ENTRIES_MAX, EventLog, Kind
from p2pdist.swarm.stories import PATH, TOLD_MAX, Teller, Told, handler

DIGEST = digest_of(b"layer")
TELLER = Teller("peer", "a" * 32, "dc1")


async def ask(events: EventLog, query: str = "", remote: str = "127.0.0.1") -> tuple[int, bytes]:
    request = make_mocked_request("GET", f"{PATH}?digest={query}").clone(remote=remote)
    answer = await handler(events, lambda: TELLER)(request)
    assert isinstance(answer.body, bytes)
    return answer.status, answer.body


@pytest.mark.parametrize(("remote", "status"), [("::1", 200), ("10.0.0.9", 403), ("", 403)])
async def test_it_is_told_on_this_host_only(remote: str, status: int) -> None:
    assert (await ask(EventLog(), remote=remote))[0] == status


async def test_the_longest_answer_is_bounded() -> None:
    events = EventLog()
    for motion in range(BLOBS_MAX):
        log = events.begin(DIGEST, 1, float(motion))
        log.sought(float(motion))
        for i in range(2 * ENTRIES_MAX):
            log.note(Kind.UNKEPT, i * 1e3, host=f"{i:032x}", text="\x00" * 500)

    status, body = await ask(events, DIGEST)

    assert status == 200
    assert len(msgspec.json.decode(body, type=Told).stories) == TOLD_MAX
    assert len(body) < 4 << 20


async def test_a_blob_is_listed_once_with_its_last_motion() -> None:
    events = EventLog()
    events.begin(DIGEST, 1, 0.0).end(Kind.FAILED, 1.0)
    events.begin(DIGEST, 2, 2.0).end(Kind.WHOLE, 3.0)
    events.begin(Digest("sha256:" + "0" * 64), 3, 4.0)

    _, body = await ask(events)

    known = msgspec.json.decode(body, type=Told).blobs
    assert [(blob.size_bytes, blob.outcome) for blob in known] == [(3, "under_way"), (2, "whole")]


@pytest.mark.parametrize("query", ["..", "sha256:%00", "A" * 10, "0" * 300, "sha256:xyz"])
async def test_what_begins_no_digest_is_refused(query: str) -> None:
    assert (await ask(EventLog(), query))[0] == 400


async def test_private_blobs_of_a_repository_are_named_by_what_is_their_own() -> None:
    events, scope = EventLog(), "ab" * 16
    first, second = (Digest(f"private:{scope}{own * 16}") for own in ("01", "02"))
    for digest in (first, second):
        events.begin(digest, 1, 0.0)

    for query in (f"private:{'01' * 5}", "01" * 5, first):
        status, body = await ask(events, query)
        assert status == 200, query
        assert [blob.digest for blob in msgspec.json.decode(body, type=Told).blobs] == [first]
    assert (await ask(events, scope))[0] == 409
