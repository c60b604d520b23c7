"""One run for all who ask at the same time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from p2pdist.process.single_flight import SingleFlight


class Work:
    """Counts its runs and ends when it is told."""

    def __init__(self) -> None:
        self.runs = 0
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        self.began.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.runs


@pytest.fixture
async def flights() -> AsyncIterator[SingleFlight[str, int]]:
    flights: SingleFlight[str, int] = SingleFlight()
    yield flights
    await flights.close()


async def test_all_who_ask_at_once_share_one_run(flights: SingleFlight[str, int]) -> None:
    work = Work()
    work.may_end.set()

    results = await asyncio.gather(*(flights.run("key", work) for _ in range(100)))

    assert results == [1] * 100


async def test_other_keys_run_on_their_own(flights: SingleFlight[str, int]) -> None:
    work = Work()
    work.may_end.set()

    await asyncio.gather(flights.run("a", work), flights.run("b", work))

    assert work.runs == 2


async def test_a_result_is_not_kept(flights: SingleFlight[str, int]) -> None:
    work = Work()
    work.may_end.set()

    assert [await flights.run("key", work) for _ in range(2)] == [1, 2]
    assert len(flights) == 0


async def test_an_error_goes_to_all_who_wait(flights: SingleFlight[str, int]) -> None:
    work = Work()
    work.may_end.set()
    work.error = ValueError("no")

    results = await asyncio.gather(
        *(flights.run("key", work) for _ in range(3)), return_exceptions=True
    )

    assert [str(result) for result in results] == ["no"] * 3
    assert work.runs == 1


async def test_the_cancelled_first_caller_takes_nobody_along(
    flights: SingleFlight[str, int],
) -> None:
    work = Work()
    async with asyncio.TaskGroup() as group:
        leader = group.create_task(flights.run("key", work))
        await work.began.wait()
        follower = group.create_task(flights.run("key", work))
        leader.cancel()
        work.may_end.set()

    assert leader.cancelled()
    assert follower.result() == 1


async def test_work_outlives_a_caller_without_patience(flights: SingleFlight[str, int]) -> None:
    work = Work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flights.run("key", work)

    work.may_end.set()

    assert await flights.run("key", work) == 1


async def test_an_error_that_nobody_waits_for_is_silent(flights: SingleFlight[str, int]) -> None:
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    work = Work()
    work.error = ValueError("no")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flights.run("key", work)

    work.may_end.set()
    await flights.close()
    gc.collect()

    assert unheard == []


async def test_close_cancels_those_who_wait() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(flights.run("key", work))
        await work.began.wait()
        await flights.close()

    assert waiter.cancelled()
