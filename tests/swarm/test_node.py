"""What a node does about neighbours that are wrong, and about blobs that it may not hand out."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Interest
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.members import Role
from p2pdist.store.store import Store
from p2pdist.swarm.core.trust import STRIKES_MAX
from p2pdist.swarm.node import Node
from p2pdist.swarm.server import everything
from tests.swarm.active_parts import KEYRING, SignedMap, in_motion, some_bytes
from tests.swarm.links import PLACE, link, real

DATA = some_bytes(4.5)
TRUE = SignedMap(DATA, b"t")


class Wanted:
    """A proxy's authority that only notes what is asked for."""

    def __init__(self) -> None:
        self.digests: list[Digest] = []

    def wanted(self, digest: Digest, *, bulk: bool) -> None:
        self.digests.append(digest)

    def brings(self, digest: Digest) -> bool:
        return False

    async def small(self, digest: Digest) -> None: ...


def node_of(store: Any, *, may_serve: bool = True) -> Node:
    """A node whose network is not up yet."""
    node = Node(
        store=store,
        keyring=KEYRING,
        place=PLACE,
        is_proxy=True,
        rng=Random(1),
        servable=everything if may_serve else lambda digest: False,
    )
    neighbourhood: Any = SimpleNamespace(links={}, bring_back=lambda link: False)
    node.neighbourhood = neighbourhood
    return node


def no_proxies(name: str | None = None) -> Any:
    """The links to proxies of a host that has none, or, with `name`, only such neighbours."""
    return SimpleNamespace(name_of=lambda host: name)


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "faults"), [("hash", STRIKES_MAX), ("map", 1), ("signature", 1), ("frame", 1)]
)
async def test_wrong_bytes_may_be_an_accident_and_all_else_bans_at_once(
    reason: str, faults: int
) -> None:
    node, neighbour = node_of(None), link("a")
    node.proxy_links = no_proxies()
    for n in range(1, faults + 1):
        assert not neighbour.closed
        node.punish(real(neighbour), PeerFault("wrong", reason=reason))
        assert neighbour.closed == (n == faults)

    assert node.counters.rejected[reason] == faults
    assert "banned" in neighbour.close_reason


@pytest.mark.parametrize("reason", ["hash", "map", "proto"])
async def test_bits_that_flip_on_the_way_take_no_proxy_away(reason: str) -> None:
    """Three of them used to ban a host's only proxy for ten minutes."""
    node, proxy = node_of(None), link("a", role=Role.PROXY)
    node.proxy_links = no_proxies("http://proxy")
    for _ in range(STRIKES_MAX):
        node.punish(real(proxy), PeerFault("wrong", reason=reason))

    assert proxy.closed
    assert node.core.trust.bans_total == 0


async def test_last_words_count_though_their_link_has_closed() -> None:
    """They wait for the disk behind others; who hangs up meanwhile is banned all the same."""
    node, neighbour = node_of(None), link("a")
    node.proxy_links = no_proxies()
    state = node.links.state(real(neighbour))
    node.links.forget(real(neighbour))
    node.core.punish(state, PeerFault("wrong", reason="map"), 0.0)
    node.carry_out()

    assert node.core.trust.bans_total == 1
    assert node.counters.rejected["map"] == 1


# --- access that was taken back -----------------------------------------------------------------


async def stored(store: Store) -> Digest:
    """Also a small blob lies here; return its digest."""
    await store.put_small(digest_of(b"config"), b"config")
    return digest_of(b"config")


@pytest.mark.parametrize("may_serve", [True, False])
async def test_what_may_not_be_served_is_not_announced(tmp_path: Path, may_serve: bool) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0)
        small = await stored(motion.node.store)

        deltas = node_of(motion.node.store, may_serve=may_serve).tracker_side.full_announce()

        assert {delta.key for delta in deltas} == ({TRUE.digest, small} if may_serve else set())


@pytest.mark.parametrize("may_serve", [True, False])
async def test_what_may_not_be_served_is_not_fetched_for_a_neighbour(may_serve: bool) -> None:
    store = SimpleNamespace(get=lambda digest: None)
    node, authority = node_of(store, may_serve=may_serve), Wanted()
    node.authority = authority

    node.router.frame(real(link("a")), Interest(TRUE.digest))

    assert authority.digests == ([TRUE.digest] if may_serve else [])
    assert not node.actives
