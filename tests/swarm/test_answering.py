"""Proxies that take questions and answer none, among others and alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from p2pdist.errors import RegistryError, UpstreamError
from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm import answering as shell
from p2pdist.swarm.answering import Answering
from p2pdist.swarm.core import answering as core
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

HUNG_S = 0.05


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "HUNG_S", HUNG_S)
    monkeypatch.setattr(shell, "HUNG_S", HUNG_S)
    for name in ("LOOK_S", "LOOK_PROBED_S"):
        monkeypatch.setattr(shell, name, HUNG_S / 5)
    for name in ("USUAL_MIN_S", "USUAL_MAX_S", "PROBE_AGAIN_FIRST_S", "PROBE_AGAIN_MAX_S"):
        monkeypatch.setattr(core, name, HUNG_S / 5)
    monkeypatch.setattr(shell, "LIFE_S", HUNG_S / 5)


class Proxy:
    """Answers questions, and probes, when it is let to."""

    def __init__(self, name: str) -> None:
        self.base_url = name
        self.runs, self.answers = asyncio.Event(), asyncio.Event()
        self.runs.set()
        self.answers.set()
        self.dead = False
        self.asked = self.probed = self.left = 0

    def hang(self) -> None:
        self.runs.clear()
        self.answers.clear()

    def resume(self) -> None:
        self.runs.set()
        self.answers.set()

    async def greet(self, *, timeout_s: float) -> None:
        self.probed += 1
        if self.dead:
            raise UpstreamError("refused")
        await self.runs.wait()

    async def question(self) -> str:
        self.asked += 1
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        return self.base_url


class Lab:
    def __init__(self) -> None:
        self.one, self.two = Proxy("one"), Proxy("two")
        self.tasks = TaskOwner("test")
        self.turned: list[str] = []
        self.linked_s: dict[str, float] = {}
        self.answering = self.knowing(self.one, self.two)

    def knowing(self, *proxies: Proxy) -> Answering:
        known: dict[str, Any] = {proxy.base_url: proxy for proxy in proxies}
        return Answering(
            known,
            self.tasks,
            linked_s=self.linked_s.get,
            ping=self._ping,
            turned=self.turned.append,
        )

    def _ping(self, name: str) -> None:
        """What comes over the link of the first proxy, if there is one, while it runs."""
        if name in self.linked_s and self.one.runs.is_set():
            self.linked_s[name] = asyncio.get_running_loop().time()

    async def ask(self, *proxies: Proxy, direct: bool = False) -> str | None:
        asked: Any = proxies or (self.one, self.two)
        return await self.answering.first_of(asked, _question, direct=direct)

    def asking(self, *, direct: bool = False) -> asyncio.Task[str | None]:
        """Ask the first proxy alone, and do not wait for it."""
        return self.tasks.start(self.ask(self.one, direct=direct), name="asking")

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.001)


async def _question(proxy: Any) -> str | None:
    answer: str = await proxy.question()
    return answer


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    yield lab
    await lab.tasks.close()


async def test_the_first_proxy_alone_is_asked_while_it_answers(lab: Lab) -> None:
    assert await lab.ask() == "one"

    assert (lab.two.asked, lab.one.probed) == (0, 0)


async def test_another_proxy_is_asked_beside_one_that_hangs(lab: Lab) -> None:
    with recorded(58, "proxy hangs", "another one answers") as record:
        lab.one.hang()

        assert await lab.ask() == "two"

        assert lab.one.asked == 1
        await lab.until(lambda: lab.answering.book.hung("one"))
        assert (lab.turned, lab.answering.hangs_total) == (["one"], 1)
        assert lab.one.left == 1
        record.outcome = "the other one is asked beside it, and first from then on"


async def test_one_that_hangs_is_left_for_what_is_not_a_proxy(lab: Lab) -> None:
    with recorded(58, "proxy hangs", "no other one, a registry to go to") as record:
        lab.answering = lab.knowing(lab.one)
        lab.one.hang()

        assert await lab.ask(lab.one, direct=True) is None
        assert await lab.ask(lab.one, direct=True) is None

        assert lab.one.left == lab.one.asked
        assert lab.answering.hangs_total == 1
        record.outcome = "left as soon as it is known, and not waited for again"


async def test_one_that_hangs_is_waited_for_where_nobody_else_is(lab: Lab) -> None:
    with recorded(58, "proxy hangs", "nobody else is there") as record:
        lab.answering = lab.knowing(lab.one)
        lab.one.hang()
        asked = lab.asking()
        await lab.until(lambda: lab.answering.book.hung("one"))
        await asyncio.sleep(0)
        assert not asked.done()

        lab.one.resume()

        assert await asked == "one"
        assert not lab.answering.book.hung("one")
        record.outcome = "waited for, and answered when it went on"


async def test_one_that_is_busy_is_no_reason_to_ask_a_registry(lab: Lab) -> None:
    lab.answering = lab.knowing(lab.one)
    lab.one.answers.clear()
    asked = lab.asking(direct=True)
    await lab.until(lambda: lab.one.probed > 2)

    lab.one.resume()

    assert await asked == "one"
    assert lab.turned == []


async def test_one_that_died_does_not_hang(lab: Lab) -> None:
    lab.one.hang()
    await lab.ask()
    await lab.until(lambda: lab.answering.book.hung("one"))
    lab.one.dead = True
    lab.one.resume()

    await lab.until(lambda: not lab.answering.book.hung("one"))

    assert lab.turned == ["one", "one"]


async def test_a_probe_that_is_answered_late_ends_it(lab: Lab) -> None:
    lab.one.hang()
    await lab.ask()
    await lab.until(lambda: lab.answering.book.hung("one"))

    lab.one.resume()

    await lab.until(lambda: not lab.answering.book.hung("one"))
    assert await lab.ask() == "one"


async def test_a_proxy_with_a_link_is_probed_over_it(lab: Lab) -> None:
    lab.answering = lab.knowing(lab.one)
    lab.linked_s["one"] = 0.0
    lab.one.answers.clear()
    asked = lab.asking(direct=True)
    await lab.until(lambda: lab.linked_s["one"] > 0)
    await asyncio.sleep(2 * HUNG_S)
    assert lab.turned == []

    lab.one.hang()
    await lab.until(lambda: lab.turned == ["one"])

    assert await asked is None
    assert lab.one.probed == 0


async def test_a_link_that_shows_life_ends_it(lab: Lab) -> None:
    lab.linked_s["one"] = 0.0
    lab.one.hang()
    await lab.ask()
    await lab.until(lambda: lab.answering.book.hung("one"))

    lab.linked_s["one"] = asyncio.get_running_loop().time()

    await lab.until(lambda: lab.turned == ["one", "one"])


async def test_what_no_other_source_may_overrule_is_raised(lab: Lab) -> None:
    async def denied(proxy: Any) -> str:
        raise RegistryError(404, "MANIFEST_UNKNOWN", proxy.base_url)

    clients: Any = (lab.one, lab.two)
    with pytest.raises(RegistryError, match="one"):
        await lab.answering.first_of(clients, denied, direct=False)

    assert lab.tasks.crashes_total == 0


async def test_a_question_that_ends_leaves_nothing_behind(lab: Lab) -> None:
    lab.one.hang()
    asked = lab.asking()
    await lab.until(lambda: lab.one.asked > 0)

    asked.cancel()
    await asyncio.wait({asked})
    await lab.until(lambda: lab.one.left > 0)

    assert lab.answering._waits["one"] == set()
