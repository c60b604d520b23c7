"""Asks proxies, and leaves those that hang: an `AnswerBook` on real clocks."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from p2pdist.errors import P2pdistError, UpstreamError
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.swarm.core.answering import HUNG_S, AnswerBook

T = TypeVar("T")

LIFE_S: Final = 0.3
"""What a proxy gets to show that it is alive, before the next one is asked beside it."""
BUSY_S: Final = 2.0
"""What one gets that is: it asks a registry, and another proxy would ask that again."""
PROBE_LASTS_S: Final = 10.0
LOOK_S: Final = 0.25
LOOK_PROBED_S: Final = 0.05
"""How often the link of a proxy is looked at that hangs, or that was just probed over it."""


@dataclass(eq=False, slots=True)
class _Wait:
    """Somebody waits for a proxy; `direct`: there is a source beside the proxies."""

    limit: asyncio.Timeout
    direct: bool


@dataclass(frozen=True, slots=True)
class _Found(Generic[T]):
    """What ends a search: an answer, or an error that no other source may overrule."""

    answer: T | None = None
    error: P2pdistError | None = None


class Answering:
    """One of a node, for everything that it asks of proxies over `/v2/`."""

    def __init__(
        self,
        clients: Mapping[str, ProxyClient],
        tasks: TaskOwner,
        *,
        linked_s: Callable[[str], float | None] = lambda _: None,
        ping: Callable[[str], None] = lambda _: None,
        away: Callable[[str], bool] = lambda _: False,
        turned: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`linked_s`: when something came over the link of a proxy last, None
        without one; `ping`: have something come; `away`: it cannot be reached now; `turned`: it
        hangs from now on, or does so no longer."""
        self.book = AnswerBook(clients)
        self.hangs_total = 0
        self._clients = clients
        self._tasks = tasks
        self._linked_s = linked_s
        self._ping = ping
        self._away = away
        self._turned = turned
        self._loop = asyncio.get_running_loop()
        self._waits: dict[str, set[_Wait]] = {name: set() for name in clients}
        self._looks: dict[str, asyncio.TimerHandle] = {}

    # --- questions ------------------------------------------------------------------------------

    @asynccontextmanager
    async def answer_of(self, client: ProxyClient, *, direct: bool) -> AsyncIterator[None]:
        """The block waits for an answer of `client`, and learns how long that took.

        Raises UpstreamError as soon as the proxy is known to hang, while there is another source:
        a proxy that is there, or what `direct` stands for. Without one it is waited for.
        """
        name, began_s = client.base_url, self._loop.time()
        try:
            async with self.listening(client, direct=direct):
                yield
        except UpstreamError as error:
            if error.status:
                self._answered(name, began_s)
            raise
        self._answered(name, began_s)

    @asynccontextmanager
    async def listening(self, client: ProxyClient, *, direct: bool) -> AsyncIterator[None]:
        """Like `answer_of`, for what says nothing about how long an answer takes."""
        name = client.base_url
        timer: asyncio.TimerHandle

        def again() -> None:
            nonlocal timer
            self.doubt(client)
            timer = self._loop.call_later(self.book.usual_s(name), again)

        timer = self._loop.call_later(self.book.usual_s(name), again)
        limit = asyncio.timeout(None)
        wait = _Wait(limit, direct)
        try:
            async with limit:
                self._waits[name].add(wait)
                self._let_go(name, [wait])
                yield
        except TimeoutError:
            if limit.expired():
                raise UpstreamError(f"{name} hangs") from None
            raise
        finally:
            timer.cancel()
            self._waits[name].discard(wait)

    async def first_of(
        self,
        clients: Sequence[ProxyClient],
        ask: Callable[[ProxyClient], Awaitable[T | None]],
        *,
        direct: bool,
    ) -> T | None:
        """Ask one proxy after the other; the first answer that is not None counts.

        The next one is asked when one has nothing to say, and beside one that takes longer than
        usual. What `ask` raises other than an UpstreamError (which counts as None) ends all of it.
        """

        async def asked(client: ProxyClient) -> _Found[T] | None:
            try:
                async with self.answer_of(client, direct=direct):
                    answer = await ask(client)
            except UpstreamError:
                return None
            except P2pdistError as error:
                return _Found(error=error)
            return _Found(answer) if answer is not None else None

        tasks: set[asyncio.Task[_Found[T] | None]] = set()
        try:
            for client in clients:
                began_s = self._loop.time()
                tasks.add(self._tasks.start(asked(client), name=f"ask {client.base_url}"))
                for patience_s in self._patience(client.base_url, began_s):
                    if (found := await _first(tasks, patience_s)) is not None:
                        return _given(found)
                    if not tasks:
                        break
            found = await _first(tasks, None)
            return _given(found) if found is not None else None
        finally:
            for task in tasks:
                task.cancel()

    def _patience(self, name: str, began_s: float) -> Iterator[float]:
        """The waits before the next proxy is asked beside `name`."""
        yield self.book.usual_s(name)
        yield LIFE_S
        self._look_at_link(name)
        if self.book.lives(name, began_s):
            yield max(0.0, began_s + BUSY_S - self._loop.time())

    def _answered(self, name: str, began_s: float) -> None:
        now_s = self._loop.time()
        if self.book.answered(name, now_s - began_s, now_s):
            self._turned(name)

    def _let_go(self, name: str, waits: Iterable[_Wait]) -> None:
        """End the waits for a proxy that hangs, where there is another source."""
        if not self.book.hung(name):
            return
        another = any(not self.book.hung(n) and not self._away(n) for n in self._clients)
        for wait in list(waits):
            if wait.direct or another:
                self._waits[name].discard(wait)
                wait.limit.reschedule(self._loop.time())

    # --- doubts ---------------------------------------------------------------------------------

    def heard(self, name: str, at_s: float | None = None) -> None:
        """A proxy gave a sign of life."""
        if self.book.heard(name, self._loop.time() if at_s is None else at_s):
            self._turned(name)

    def doubt(self, client: ProxyClient) -> None:
        """Somebody waits for `client` in vain: find out whether it hangs."""
        if self.book.doubt(client.base_url, self._loop.time()):
            self._tasks.start(self._probe(client), name=f"probe {client.base_url}")

    async def _probe(self, client: ProxyClient) -> None:
        """Probe a proxy until it is known not to hang."""
        name = client.base_url
        self._look_later(name, HUNG_S)
        try:
            while not await self._probed(client) and self.book.hung(name):  # noqa: ASYNC110
                await asyncio.sleep(self.book.next_pause_s(name))
        finally:
            self.book.probe_over(name, self._loop.time())
            self._looks.pop(name).cancel()

    async def _probed(self, client: ProxyClient) -> bool:
        """One probe; False: it was not answered.

        Over its link, if there is one: that costs a proxy little when a whole fleet waits for it.
        """
        name, began_s = client.base_url, self._loop.time()
        self._ping(name)
        while self._linked_s(name) is not None:
            self._look_at_link(name)
            if self.book.lives(name, began_s):
                return True
            if self._loop.time() - began_s > PROBE_LASTS_S:
                return False
            await asyncio.sleep(LOOK_PROBED_S)
        began_s = self._loop.time()
        try:
            await client.greet(timeout_s=PROBE_LASTS_S)
        except UpstreamError as error:
            if not error.status:
                if self._loop.time() - began_s < HUNG_S and self.book.gone(name):
                    self._turned(name)
                return False
        self.heard(name)
        return True

    def _look_later(self, name: str, delay_s: float) -> None:
        self._looks[name] = self._loop.call_later(delay_s, self._look, name)

    def _look(self, name: str) -> None:
        """The probe of `name` is out for a while: see whether its link shows life."""
        self._look_later(name, LOOK_S)
        self._look_at_link(name)
        if self.book.unanswered(name, self._loop.time()):
            self.hangs_total += 1
            self._let_go(name, self._waits[name])
            self._turned(name)

    def _look_at_link(self, name: str) -> None:
        if (at_s := self._linked_s(name)) is not None:
            self.heard(name, at_s)


async def _first(tasks: set[asyncio.Task[T | None]], timeout_s: float | None) -> T | None:
    """Return the first outcome that is not None; None when the time is over or no task is left.

    Tasks that ended are taken out of the set.
    """
    loop = asyncio.get_running_loop()
    until_s = None if timeout_s is None else loop.time() + timeout_s
    while tasks:
        left_s = None if until_s is None else max(0.0, until_s - loop.time())
        done, _ = await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        for task in done:
            tasks.discard(task)
            if (outcome := task.result()) is not None:
                return outcome
    return None


def _given(found: _Found[T]) -> T | None:
    if found.error is not None:
        raise found.error
    return found.answer
