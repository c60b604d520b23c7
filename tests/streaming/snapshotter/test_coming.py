"""Images that are opened while an engine still asks for their manifests and configs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.layered_image import LayeredImage, layered_image
from p2pdist.oci.names import ImageName
from p2pdist.oci.wanted_images import WantedImage
from p2pdist.streaming.snapshotter import coming
from p2pdist.streaming.snapshotter.coming import ComingImages
from p2pdist.streaming.snapshotter.mirror import MirrorFault


def image(name: str) -> LayeredImage:
    blobs = [(digest_of(name.encode()), 4)]
    return layered_image(ImageName("docker.io", name), blobs, [digest_of(b"archive")])


@dataclass
class Told:
    """Implements what is used of `Mirror` and of `LazyImages`."""

    answers: list[WantedImage | MirrorFault | None]
    asked: list[int | None] = field(default_factory=list)
    expected: list[LayeredImage] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def coming_image(self, after: int | None) -> WantedImage | None:
        self.asked.append(after)
        if not self.answers:
            self.done.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, MirrorFault):
            raise answer
        return answer

    def expect(self, image: LayeredImage) -> None:
        self.expected.append(image)


async def run(told: Told) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ComingImages(told, told).run())  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            await told.done.wait()
        running.cancel()


async def test_each_image_that_the_mirror_tells_of_is_opened() -> None:
    told = Told([WantedImage(4, image("one")), WantedImage(5, image("two"))])

    await run(told)

    assert told.expected == [image("one"), image("two")]
    assert told.asked == [None, 4, 5]


@pytest.mark.parametrize("answer", [MirrorFault("restarts"), None])
async def test_a_mirror_that_does_not_tell_is_asked_again_after_a_while(
    answer: MirrorFault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    told = Told([WantedImage(4, image("one")), answer, WantedImage(1, image("two"))])

    await run(told)

    assert told.expected == [image("one"), image("two")]
    assert told.asked == [None, 4, 4, 1], "the numbers are those of the mirror"
    assert pauses == [coming.AGAIN_S]
