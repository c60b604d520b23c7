"""One upload budget for all who send: turns, slices, and who leaves the line."""

from __future__ import annotations

import asyncio

from p2pdist.exchange.frames import SLICE_BYTES_MAX as SLICE
from p2pdist.exchange.upload import BURST_S, Turn, Upload

RATE = 64 * SLICE
DEADLINE_S = 20.0


def spent(upload: Upload) -> Upload:
    """Without anything left to take."""
    while upload.take(SLICE):
        pass
    return upload


async def until_idle(upload: Upload) -> None:
    """Until whoever stands in the line has had a turn: by standing at its end."""
    async with asyncio.timeout(DEADLINE_S):
        await upload.some_of(1)


def waiting(upload: Upload, heard: list[int], number: int) -> Turn:
    turn = upload.ask(SLICE, lambda: heard.append(number))
    assert turn is not None
    return turn


async def test_turns_come_in_the_order_of_asking() -> None:
    upload, heard = spent(Upload(RATE)), list[int]()
    for number in range(5):
        waiting(upload, heard, number)
    assert heard == []

    await until_idle(upload)

    assert heard == [0, 1, 2, 3, 4]


async def test_nobody_overtakes_the_line() -> None:
    upload, heard = spent(Upload(RATE)), list[int]()
    waiting(upload, heard, 0)
    upload.give_back(2 * SLICE)  # there is enough for both

    assert not upload.take(1)

    waiting(upload, heard, 1)
    await until_idle(upload)
    assert heard == [0, 1]


async def test_who_leaves_the_line_takes_nothing_and_hears_nothing() -> None:
    upload, heard = spent(Upload(RATE)), list[int]()
    turns = [waiting(upload, heard, number) for number in range(3)]
    upload.leave(turns[0])
    upload.leave(turns[1])

    await until_idle(upload)

    assert heard == [2]


async def test_a_turn_that_was_granted_and_is_not_used_is_given_back() -> None:
    upload, heard = spent(Upload(1)), list[int]()
    upload.give_back(SLICE)
    assert upload.ask(SLICE, lambda: None) is None
    turn = Turn(SLICE, lambda: None, granted=True)

    upload.leave(turn)

    assert upload.take(SLICE)
    assert heard == []


async def test_what_is_owed_delays_what_comes_next() -> None:
    upload = Upload(RATE)
    upload.owe(10 * SLICE)
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    await upload.some_of(SLICE)

    burst = max(SLICE, RATE * BURST_S)
    assert loop.time() - began_s >= 0.95 * (10 * SLICE - burst) / RATE


async def test_who_is_alone_gets_more_than_a_slice_and_one_of_many_gets_one() -> None:
    assert await Upload(1000 * SLICE).some_of(4 * SLICE) == 4 * SLICE

    # What may have gathered by the time of the first turns is enough for two of four.
    upload = spent(Upload(RATE))
    got = await asyncio.gather(*(upload.some_of(4 * SLICE) for _ in range(4)))
    assert got[:2] == [SLICE, SLICE]


async def test_two_who_send_get_the_same_at_the_given_rate() -> None:
    upload, sent = spent(Upload(RATE)), [0, 0]
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    async def send(sender: int) -> None:
        while max(sent) < 16 * SLICE:
            sent[sender] += await upload.some_of(SLICE)

    await asyncio.gather(send(0), send(1))

    assert abs(sent[0] - sent[1]) <= SLICE
    assert loop.time() - began_s >= 0.9 * (sum(sent) - 2 * SLICE) / RATE


async def test_who_is_cancelled_while_waiting_leaves_the_line() -> None:
    upload, heard = spent(Upload(RATE)), list[int]()
    waiting(upload, heard, 0)
    async with asyncio.TaskGroup() as tasks:
        given_up = tasks.create_task(upload.some_of(SLICE))
        await asyncio.sleep(0)
        waiting(upload, heard, 1)
        given_up.cancel()

    await until_idle(upload)
    assert given_up.cancelled()

    assert heard == [0, 1]
