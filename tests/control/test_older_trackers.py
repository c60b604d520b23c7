"""A tracker that does not know private digests hears of none."""

from __future__ import annotations

import pytest

from p2pdist.control.older_trackers import without_private
from p2pdist.model.control import (
    Announce,
    Delta,
    Join,
    LeaseAsk,
    LeaseEnd,
    Leave,
    Status,
    ToTracker,
    digest_key,
    origin_key,
)
from p2pdist.model.ids import Digest, digest_of

PUBLIC, PRIVATE = digest_of(b"a"), Digest("private:" + "ab" * 32)


def about(digest: Digest) -> list[ToTracker]:
    key = digest_key(digest)
    return [
        Join(1, key),
        Leave(key),
        LeaseAsk(2, key),
        LeaseAsk(3, origin_key(digest)),
        LeaseEnd(key, 4),
    ]


@pytest.mark.parametrize("message", about(PRIVATE))
def test_nothing_is_asked_about_one(message: ToTracker) -> None:
    assert without_private(message) is None


@pytest.mark.parametrize("message", [*about(PUBLIC), Status({"bans": 1.0})])
def test_the_rest_is_said_as_ever(message: ToTracker) -> None:
    assert without_private(message) is message


def test_an_announcement_tells_the_rest_of_what_is_held() -> None:
    public, private = Delta(digest_key(PUBLIC), 3, False), Delta(digest_key(PRIVATE), 4, True)

    assert without_private(Announce([private, public])) == Announce([public])
    assert without_private(Announce([private])) is None
    # It replaces all that was said before, so nothing is said by it, too.
    assert without_private(Announce([private], full=True)) == Announce([], full=True)
