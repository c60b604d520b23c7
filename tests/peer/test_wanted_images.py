"""Who waits for whom when an engine is about to pull."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.peer import wanted_images
from p2pdist.peer.wanted_images import LISTENERS_MAX, PULLS_MAX, WantedImages

IMAGE = layered_image(
    ImageName("docker.io", "library/app"), [(digest_of(b"blob"), 4)], [digest_of(b"archive")]
)

T = TypeVar("T")


@pytest.fixture
def wanted() -> WantedImages:
    return WantedImages(hold_s=50, wait_s=50)


async def started(coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(coro)
    await asyncio.sleep(0)
    return task


async def test_without_a_snapshotter_nobody_waits(wanted: WantedImages) -> None:
    assert not wanted.attended
    await wanted.offer(IMAGE)


async def test_an_engine_waits_until_its_image_is_settled(wanted: WantedImages) -> None:
    question = await started(wanted.next())
    pull = await started(wanted.offer(IMAGE))
    told = await question
    assert told is not None
    assert told.image == IMAGE
    assert not pull.done()

    wanted.settle(told.number + 1)
    await asyncio.sleep(0)
    assert not pull.done()

    wanted.settle(told.number)
    await pull


async def test_what_is_wanted_between_two_questions_is_told_with_the_next(
    wanted: WantedImages,
) -> None:
    question = await started(wanted.next())
    first = await started(wanted.offer(IMAGE))
    await question
    second = await started(wanted.offer(IMAGE))

    told = await wanted.next()
    assert told is not None
    assert not second.done()
    wanted.settle(told.number)
    await second
    first.cancel()


async def test_a_snapshotter_that_does_not_ask_again_is_gone(
    wanted: WantedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = await started(wanted.next())
    pull = await started(wanted.offer(IMAGE))
    await question
    monkeypatch.setattr(wanted_images, "BETWEEN_S", 0.0)

    assert not wanted.attended
    await wanted.offer(IMAGE)
    pull.cancel()


async def test_an_engine_that_has_gone_on_is_not_told_of() -> None:
    wanted = WantedImages(hold_s=0, wait_s=0)
    question = await started(wanted.next())
    await started(wanted.offer(IMAGE))
    assert await question is not None
    await wanted.offer(IMAGE)  # its time is over before anybody asks

    assert await wanted.next() is None


async def test_a_question_that_is_given_up_leaves_nothing(wanted: WantedImages) -> None:
    question = await started(wanted.next())
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question

    assert not wanted.attended


async def test_questions_and_pulls_are_bounded(wanted: WantedImages) -> None:
    questions = [await started(wanted.next()) for _ in range(LISTENERS_MAX + 1)]
    assert await questions[0] is None
    pulls = [await started(wanted.offer(IMAGE)) for _ in range(PULLS_MAX)]

    await wanted.offer(IMAGE)

    wanted.close()
    await asyncio.gather(*pulls)
    assert len([question for question in questions if await question is not None]) == LISTENERS_MAX


async def test_at_the_end_nobody_waits(wanted: WantedImages) -> None:
    question = await started(wanted.next())
    wanted.close()

    assert await question is None
    assert await wanted.next() is None
