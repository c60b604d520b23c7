"""When which proxy is told where a blob lies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.names import ImageName
from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm import sourcing
from p2pdist.swarm.answering import Answering
from p2pdist.swarm.smalls import SmallAnswer
from p2pdist.swarm.sourcing import LOOK_PAUSE_FIRST_S, LOOK_PAUSE_MAX_S, BlobFinder
from p2pdist.swarm.vain import InVain

NAME = ImageName("docker.io", "library/app")


class Proxy:
    """Answers when it is let to."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.introduced = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.knows_the_blob = True
        self.status = 0

    async def introduce(self, name: ImageName, digest: Digest, *, timeout_s: float) -> int:
        self.introduced += 1
        await self.answers.wait()
        if not self.knows_the_blob:
            raise UpstreamError("no", status=self.status)
        return 1000


class Active:
    """A blob in motion that notes whom it is to ask."""

    digest = digest_of(b"layer")

    def __init__(self) -> None:
        self.attached: list[str] = []

    def attach(self, link: str) -> None:
        self.attached.append(link)


class Swarm:
    """A node with some proxies, the owner of the blob first."""

    def __init__(self, *proxies: Proxy) -> None:
        self.tasks = TaskOwner("test")
        self.proxy_links = self
        self.active: Any = Active()
        node: Any = self
        self.finder = BlobFinder(node)
        self._proxies = list(proxies)
        fakes: dict[str, Any] = {proxy.base_url: proxy for proxy in proxies}
        self.answering = Answering(fakes, TaskOwner("answering"))
        self.store = self.smalls = self
        self.smalls_held: dict[Digest, SmallAnswer] = {}

    def has_small(self, digest: Digest) -> bool:
        return False

    def fetch(self, wanted: Any) -> Any:
        """Of the node: a blob in motion. Of its small ones: what the swarm has."""
        if isinstance(wanted, Active):
            return None
        answer: asyncio.Future[SmallAnswer | None] = asyncio.get_running_loop().create_future()
        answer.set_result(self.smalls_held.get(wanted))
        return answer

    async def clients(self, digest: Digest) -> list[Proxy]:
        return self._proxies

    async def reach(self, proxy: Proxy) -> str:
        return proxy.base_url

    async def look(self) -> None:
        """Look for the blob, to the end of it."""
        self.finder.look(NAME, self.active)
        await until(lambda: not len(self.tasks))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # no event
            await asyncio.sleep(0)


@dataclass
class Clock:
    now_s: float = 100.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sourcing, "asyncio", SimpleNamespace(get_running_loop=lambda: clock))
    return clock


async def test_a_fleet_that_starves_is_no_herd_of_its_proxies(clock: Clock) -> None:
    """Every reader that starves says so twice a second; the pauses grow, up to a bound."""
    proxy = Proxy("http://one")
    swarm = Swarm(proxy)
    looked_at_s = []
    for tick in range(400):
        clock.now_s, before = 100.0 + tick / 10, proxy.introduced
        await swarm.look()
        if proxy.introduced > before:
            looked_at_s.append(tick / 10)

    pauses_s = [b - a for a, b in itertools.pairwise(looked_at_s)]
    assert pauses_s[0] == pytest.approx(LOOK_PAUSE_FIRST_S)
    assert max(pauses_s) == pytest.approx(LOOK_PAUSE_MAX_S)
    assert pauses_s == sorted(pauses_s)
    assert set(swarm.active.attached) == {"http://one"}


async def test_each_look_is_at_another_proxy(clock: Clock) -> None:
    """The first one may just have died."""
    proxies = [Proxy("http://one"), Proxy("http://two"), Proxy("http://three")]
    swarm = Swarm(*proxies)
    for _ in range(4):
        await swarm.look()
        clock.now_s += LOOK_PAUSE_MAX_S

    assert swarm.active.attached == ["http://one", "http://two", "http://three", "http://one"]


async def test_who_does_not_know_the_blob_is_passed_over(clock: Clock) -> None:
    ignorant, owner = Proxy("http://one"), Proxy("http://two")
    ignorant.knows_the_blob = False
    swarm = Swarm(ignorant, owner)
    await swarm.look()

    assert swarm.active.attached == ["http://two"]


async def test_there_is_one_look_at_a_time(clock: Clock) -> None:
    proxy = Proxy("http://slow")
    proxy.answers.clear()
    swarm = Swarm(proxy)
    swarm.finder.look(NAME, swarm.active)
    await until(lambda: proxy.introduced == 1)
    clock.now_s += LOOK_PAUSE_MAX_S
    swarm.finder.look(NAME, swarm.active)
    assert len(swarm.tasks) == 1

    proxy.answers.set()
    await until(lambda: not len(swarm.tasks))
    assert proxy.introduced == 1


# --- blobs of one chunk ---------------------------------------------------------------------------

CONFIG = b"config"


async def test_a_refusal_does_not_keep_a_small_blob_away_that_the_swarm_has() -> None:
    """The registry may refuse today what a peer was given yesterday."""
    proxy = Proxy("http://one")
    proxy.knows_the_blob, proxy.status = False, 403
    swarm = Swarm(proxy)
    swarm.smalls_held[digest_of(CONFIG)] = SmallAnswer("", CONFIG)

    found = await swarm.finder.small(NAME, digest_of(CONFIG), len(CONFIG))

    assert found == SmallAnswer("", CONFIG)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, ErrorReason.DENIED), (429, ErrorReason.RATE_LIMITED), (0, ErrorReason.NO_PROXY)],
)
async def test_a_small_blob_that_nobody_has_is_missed_for_a_reason(
    status: int, reason: ErrorReason
) -> None:
    proxy = Proxy("http://one")
    proxy.knows_the_blob, proxy.status = False, status

    found = await Swarm(proxy).finder.small(NAME, digest_of(CONFIG), len(CONFIG))

    assert isinstance(found, InVain)
    refusal = found.refusal()
    assert (refusal.status, refusal.code, refusal.reason) == (404, "BLOB_UNKNOWN", reason)


async def test_without_anybody_to_ask_there_is_no_source() -> None:
    found = await Swarm().finder.small(NAME, digest_of(CONFIG), len(CONFIG))

    assert isinstance(found, InVain)
    assert found.refusal().reason is ErrorReason.NO_SOURCE
