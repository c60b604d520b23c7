"""What a snapshotter is told of images that engines are about to pull."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.layered_image import LayeredImage, layered_image
from p2pdist.oci.names import ImageName
from p2pdist.peer import coming_images
from p2pdist.peer.coming_images import FOUND_AT_ONCE_MAX, KEPT_MAX, LISTENERS_MAX, ComingImages

T = TypeVar("T")


def image(name: str) -> LayeredImage:
    blobs = [(digest_of(name.encode()), 4)]
    return layered_image(ImageName("docker.io", name), blobs, [digest_of(b"archive")])


async def found(name: str) -> LayeredImage:
    return image(name)


async def no_image() -> None:
    return None


@pytest.fixture
async def coming() -> AsyncIterator[ComingImages]:
    made = ComingImages(wait_s=50)
    yield made
    await made.close()


async def started(coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(coro)
    await asyncio.sleep(0)
    return task


async def test_without_a_snapshotter_nothing_is_looked_for(coming: ComingImages) -> None:
    asked = []
    coming.tell(lambda: asked.append(1) or no_image())  # type: ignore[func-returns-value]
    await asyncio.sleep(0)
    assert not asked


async def test_a_snapshotter_is_told_of_each_image_once(coming: ComingImages) -> None:
    question = await started(coming.next(None))
    coming.tell(no_image)  # an artifact
    for name in ("one", "two"):
        coming.tell(lambda name=name: found(name))  # type: ignore[misc]
    first = await question
    assert first is not None
    second = await coming.next(first.number)
    assert second is not None
    assert [first.image, second.image] == [image("one"), image("two")]
    assert not (await started(coming.next(second.number))).done()


async def test_what_comes_between_two_questions_is_told_with_the_next(
    coming: ComingImages,
) -> None:
    question = await started(coming.next(None))
    coming.tell(lambda: found("one"))
    told = await question
    assert told is not None
    coming.tell(lambda: found("two"))  # nobody listens now, but somebody did a moment ago
    after = await coming.next(told.number)
    assert after is not None
    assert after.image == image("two")


async def test_a_snapshotter_that_is_gone_is_not_looked_for_for_long(
    coming: ComingImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = await started(coming.next(None))
    question.cancel()
    await asyncio.wait([question])
    assert coming.attended
    monkeypatch.setattr(coming_images, "BETWEEN_S", 0.0)
    assert not coming.attended


async def test_a_number_of_an_earlier_run_is_one_of_now(coming: ComingImages) -> None:
    question = await started(coming.next(1 << 50))
    coming.tell(lambda: found("one"))
    told = await question
    assert told is not None
    assert told.image == image("one")


async def test_who_asks_late_hears_of_the_last_ones_only(coming: ComingImages) -> None:
    listener = await started(coming.next(None))
    for number in range(KEPT_MAX + 3):
        coming.tell(lambda n=number: found(f"image{n}"))  # type: ignore[misc]
    await listener
    await asyncio.sleep(0)
    oldest = await coming.next(0)
    assert oldest is not None
    assert oldest.image == image("image3")


async def test_only_some_are_looked_for_at_once(coming: ComingImages) -> None:
    listener = await started(coming.next(None))
    asked: list[asyncio.Event] = []

    async def hangs() -> None:
        asked.append(asyncio.Event())
        await asked[-1].wait()

    for _ in range(2 * FOUND_AT_ONCE_MAX):
        coming.tell(hangs)
    await asyncio.sleep(0)
    assert len(asked) == FOUND_AT_ONCE_MAX
    assert not listener.done()


async def test_more_listeners_than_there_can_be_are_sent_away(coming: ComingImages) -> None:
    waiting = [await started(coming.next(None)) for _ in range(LISTENERS_MAX)]
    assert await coming.next(None) is None
    assert not any(task.done() for task in waiting)


async def test_a_question_ends_with_its_time_or_with_the_mirror() -> None:
    coming = ComingImages(wait_s=0.01)
    assert await coming.next(None) is None

    coming = ComingImages(wait_s=50)
    question = await started(coming.next(None))
    await coming.close()
    assert await question is None
    assert await coming.next(None) is None
