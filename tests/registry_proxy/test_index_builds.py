"""Builds of indexes that come to nothing."""

from __future__ import annotations

from typing import cast

import pytest

from p2pdist.registry_proxy.index_builds import NotBuilt, build_index
from p2pdist.swarm.active import ActiveBlob


class Waiting:
    """A blob of which nothing came yet; `turns` later the node lets go of it."""

    blob = None
    prefix_chunks = 0
    failure: str | None = None
    store_full = False

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.readers = self

    async def wait_progress(self, timeout_s: float) -> None:
        self.turns -= 1


async def test_a_blob_that_is_let_go_keeps_nobody_waiting_for_a_turn() -> None:
    waiting = Waiting(3)
    with pytest.raises(NotBuilt, match="let go") as caught:
        await build_index(cast("ActiveBlob", waiting), lambda: waiting.turns > 0)
    assert not caught.value.unfit


@pytest.mark.parametrize(("failure", "full"), [("revoked", False), (None, True)])
async def test_a_blob_that_does_not_come_has_no_index(failure: str | None, full: bool) -> None:
    waiting = Waiting(3)
    waiting.failure, waiting.store_full = failure, full
    with pytest.raises(NotBuilt, match=failure or "does not keep"):
        await build_index(cast("ActiveBlob", waiting), lambda: True)
