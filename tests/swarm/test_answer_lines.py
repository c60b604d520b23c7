"""How much a link that asks and does not read can have made for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from p2pdist.process.tasks import TaskOwner
from p2pdist.swarm.answer_lines import SMALLS_AT_ONCE, WAITING_MAX, AnswerLines
from tests.swarm.links import FakeLink, link, real

BODY_BYTES = 1 << 20


class Answers:
    """Makes bodies of 1 MiB, and has them read when it is told so."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self._unread: list[asyncio.Event] = []

    async def make(self, neighbour: FakeLink, name: str) -> None:
        self.made.append(name)
        neighbour.unsent_small_bytes += BODY_BYTES
        read = asyncio.Event()
        self._unread.append(read)
        await read.wait()
        neighbour.unsent_small_bytes -= BODY_BYTES

    def read_one(self) -> None:
        self._unread.pop(0).set()


@pytest.fixture
async def tasks() -> AsyncIterator[TaskOwner]:
    owner = TaskOwner("test")
    yield owner
    await owner.close()


def asked(lines: AnswerLines, answers: Answers, neighbour: FakeLink, *names: str) -> list[bool]:
    return [lines.ask(real(neighbour), partial(answers.make, neighbour, name)) for name in names]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_each_link_has_a_few_at_work_in_its_own_order(tasks: TaskOwner) -> None:
    lines, answers = AnswerLines(tasks, "answer", at_once=2), Answers()
    one, other = link("a"), link("b")
    asked(lines, answers, one, "a1", "a2", "a3", "a4")
    asked(lines, answers, other, "b1")
    await turns()
    assert answers.made == ["a1", "a2", "b1"]

    answers.read_one()
    await turns()
    assert answers.made == ["a1", "a2", "b1", "a3"]


async def test_no_more_is_made_than_the_other_end_reads(tasks: TaskOwner) -> None:
    """554 kB of requests used to become 1.1 GB of bodies."""
    lines = AnswerLines(tasks, "answer", at_once=SMALLS_AT_ONCE)
    answers, deaf = Answers(), link("a")
    for number in range(WAITING_MAX):
        asked(lines, answers, deaf, str(number))
        await turns()

    assert deaf.unsent_small_bytes == 4 * BODY_BYTES
    assert len(answers.made) == 4

    answers.read_one()
    await turns()
    # What was begun before it was known how much the others make.
    assert 4 < len(answers.made) <= 4 + SMALLS_AT_ONCE


async def test_a_link_that_asks_for_ever_is_refused(tasks: TaskOwner) -> None:
    lines, answers, deaf = AnswerLines(tasks, "answer", at_once=1), Answers(), link("a")

    outcomes = asked(lines, answers, deaf, *map(str, range(WAITING_MAX + 3)))

    assert outcomes == [True] * (WAITING_MAX + 1) + [False] * 2


async def test_nothing_is_begun_for_a_link_that_is_gone(tasks: TaskOwner) -> None:
    lines, answers, gone = AnswerLines(tasks, "answer", at_once=1), Answers(), link("a")
    asked(lines, answers, gone, "a1", "a2")
    await turns()
    gone.close("away")
    lines.link_down(real(gone))
    answers.read_one()
    await turns()

    assert answers.made == ["a1"]


async def test_a_work_that_fails_does_not_end_its_line(tasks: TaskOwner) -> None:
    lines, answers, neighbour = AnswerLines(tasks, "answer", at_once=1), Answers(), link("a")

    async def fail() -> None:
        raise RuntimeError("a defect")

    lines.ask(real(neighbour), fail)
    asked(lines, answers, neighbour, "a1")
    await turns()

    assert answers.made == ["a1"]
    assert tasks.crashes_total == 1
