"""Which images are shown before their layers are here, and which are pulled as ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.layered_image import LayeredImage, layered_image
from p2pdist.oci.names import ImageName
from p2pdist.streaming.core.index import decode_index, encode_index
from p2pdist.streaming.snapshotter.images import (
    IMAGE_LABEL,
    KEPT_S,
    MANIFEST_LABEL,
    Declined,
    LazyImages,
)
from p2pdist.streaming.snapshotter.mirror import MirrorFault
from tests.fakes.pulling import random_bytes
from tests.streaming.archives import archive, directory, file, gzipped, index_of

NAME = ImageName("docker.io", "library/app")
ARCHIVES = [
    archive(directory("d"), file("d/large", random_bytes(2 << 20, 1))),
    archive(file("small", b"small")),
    archive(file("other", random_bytes(2 << 20, 2))),
]
LAYERS = [gzipped(plain) for plain in ARCHIVES]
INDEXES = {digest_of(layer): encode_index(index_of(layer)) for layer in LAYERS}
LARGE = [digest_of(LAYERS[0]), digest_of(LAYERS[2])]


def image(archives: list[bytes] = ARCHIVES, layers: list[bytes] = LAYERS) -> LayeredImage:
    blobs = [(digest_of(layer), len(layer)) for layer in layers]
    return layered_image(NAME, blobs, [digest_of(plain) for plain in archives])


@dataclass
class ToldMirror:
    """Implements what is used of `Mirror`."""

    image: LayeredImage | None = field(default_factory=image)
    indexes: dict[Digest, bytes] = field(default_factory=lambda: dict(INDEXES))
    smalls: dict[Digest, bytes] = field(
        default_factory=lambda: {digest_of(layer): layer for layer in LAYERS}
    )
    fault: MirrorFault | None = None
    trace_fault: MirrorFault | None = None
    asked: list[str] = field(default_factory=list)
    appears_after: int = 0
    """How many questions for an index are answered before the last one is there."""
    index_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def image_of_chain(self, chain: Digest) -> LayeredImage | None:
        self.asked.append("image")
        if self.fault is not None:
            raise self.fault
        return self.image

    async def manifest(self, name: ImageName, digest: Digest) -> None:
        self.asked.append(f"manifest {name} {digest}")
        self.image = image()

    async def trace(self, layer: Digest) -> list[int]:
        if self.trace_fault is not None:
            raise self.trace_fault
        return [5, 3] if layer == LARGE[0] else []

    async def layer_index(self, name: ImageName, layer: Digest) -> bytes | None:
        self.asked.append("index")
        self.index_asked.set()
        await asyncio.sleep(0)
        if layer == LARGE[-1] and self.asked.count("index") <= self.appears_after:
            return None
        return self.indexes.get(layer)

    async def small_blob(self, name: ImageName, digest: Digest) -> bytes:
        self.asked.append("blob")
        return self.smalls[digest]


@pytest.fixture
def mirror() -> ToldMirror:
    return ToldMirror()


@pytest.fixture
async def images(mirror: ToldMirror, tmp_path: Path) -> AsyncIterator[LazyImages]:
    (tmp_path / "opening").mkdir()
    (tmp_path / "opening" / "of an earlier run").touch()
    made = LazyImages(mirror, tmp_path / "opening", open_s=50)  # type: ignore[arg-type]  # what is used of one
    assert list((tmp_path / "opening").iterdir()) == []
    yield made
    await made.close()


def chain(number: int) -> Digest:
    return image().layers[number].chain_id


async def test_all_layers_of_an_image_are_opened_with_the_first(
    images: LazyImages, mirror: ToldMirror
) -> None:
    opened = [await images.opened(chain(number), {}) for number in range(3)]

    assert [layer.layer for layer in opened] == list(image().layers)
    assert [decode_index(layer.index.read_bytes()).blob for layer in opened] == [
        digest_of(layer) for layer in LAYERS
    ]
    assert [layer.blob is not None for layer in opened] == [False, True, False]
    assert opened[1].blob is not None
    assert opened[1].blob.read_bytes() == LAYERS[1]
    assert sorted(mirror.asked) == ["blob", "image", "index", "index"]
    assert [layer.needs_those_below() for layer in opened] == [False, False, False]


async def test_an_image_that_is_about_to_be_pulled_is_opened_once(
    images: LazyImages, mirror: ToldMirror
) -> None:
    opened = await images.all_of(image())

    assert [layer.layer for layer in opened] == list(image().layers)
    assert await images.opened(chain(2), {}) is opened[2]
    assert mirror.asked.count("index") == len(LARGE)


async def test_an_image_that_may_be_pulled_is_opened_before_it_is(
    images: LazyImages, mirror: ToldMirror
) -> None:
    images.expect(image())
    images.expect(image())
    await mirror.index_asked.wait()

    assert (await images.opened(chain(0), {})).layer == image().layers[0]
    assert sorted(mirror.asked) == ["blob", "index", "index"]


async def test_one_that_could_not_be_opened_then_is_tried_again_when_it_is_pulled(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.indexes.clear()
    images.expect(image())
    while images.opening:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert images.outcomes == {"lazy": 0, "declined": 0}, "nobody pulled anything"
    mirror.indexes.update(INDEXES)

    assert (await images.opened(chain(0), {})).layer == image().layers[0]


async def test_an_image_that_cannot_be_shown_is_declined_as_a_whole(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.indexes.clear()

    with pytest.raises(Declined):
        await images.all_of(image())


async def test_an_index_in_the_making_is_waited_for(images: LazyImages, mirror: ToldMirror) -> None:
    mirror.appears_after = 3

    assert (await images.opened(chain(2), {})).layer == image().layers[2]


async def test_one_that_does_not_come_is_not_waited_for_for_long(
    mirror: ToldMirror, tmp_path: Path
) -> None:
    images = LazyImages(mirror, tmp_path / "opening", open_s=0.3)  # type: ignore[arg-type]  # what is used of one
    del mirror.indexes[LARGE[1]]

    with pytest.raises(Declined, match=r"within 0\.3 s"):
        await images.opened(chain(0), {})
    await images.close()


async def test_an_image_without_any_index_is_not_waited_for(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.indexes.clear()

    with pytest.raises(Declined, match="no layer of it has an index"):
        await images.opened(chain(0), {})
    assert mirror.asked.count("index") <= 4


async def test_what_is_decided_holds_for_the_whole_pull(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.indexes.clear()
    with pytest.raises(Declined):
        await images.opened(chain(0), {})

    mirror.indexes.update(INDEXES)

    for number in range(3):
        with pytest.raises(Declined):
            await images.opened(chain(number), {})
    assert mirror.asked.count("image") == 1


async def test_an_index_of_another_archive_is_not_believed(
    images: LazyImages, mirror: ToldMirror
) -> None:
    other = gzipped(archive(file("d/large", random_bytes(2 << 20, 7))))
    mirror.indexes[LARGE[0]] = encode_index(index_of(other))

    with pytest.raises(Declined, match="not of what the image names"):
        await images.opened(chain(0), {})


async def test_a_small_layer_that_is_another_archive_is_not_shown(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.smalls[digest_of(LAYERS[1])] = gzipped(archive(file("evil", b"evil")))

    with pytest.raises(Declined, match="not the archive that the config names"):
        await images.opened(chain(0), {})


async def test_an_image_of_small_layers_needs_no_index(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.image = image(ARCHIVES[1:2], LAYERS[1:2])

    assert (await images.opened(mirror.image.layers[0].chain_id, {})).blob is not None


@pytest.mark.parametrize("fault", [MirrorFault("out of reach"), None])
async def test_a_mirror_that_does_not_know_is_no_reason_to_fail(
    images: LazyImages, mirror: ToldMirror, fault: MirrorFault | None
) -> None:
    mirror.fault, mirror.image = fault, None

    with pytest.raises(Declined):
        await images.opened(chain(0), {})

    mirror.fault, mirror.image = None, image()
    assert (await images.opened(chain(0), {})).layer == image().layers[0], (
        "the next pull asks again"
    )


async def test_an_image_that_was_not_asked_for_is_not_shown(
    images: LazyImages, mirror: ToldMirror
) -> None:
    with pytest.raises(Declined, match="another image"):
        await images.opened(digest_of(b"nobody's"), {})


async def test_two_questions_at_once_are_one(images: LazyImages, mirror: ToldMirror) -> None:
    await asyncio.gather(*(images.opened(chain(number), {}) for number in (0, 0, 1, 2)))

    assert mirror.asked.count("index") == 2


async def test_who_asks_and_goes_away_hurts_nobody(images: LazyImages, mirror: ToldMirror) -> None:
    mirror.appears_after = 4
    asking = asyncio.gather(images.opened(chain(0), {}))
    await mirror.index_asked.wait()
    asking.cancel()

    assert (await images.opened(chain(0), {})).layer == image().layers[0]


LABELS = {IMAGE_LABEL: "registry.test/team/app:1", MANIFEST_LABEL: digest_of(b"manifest")}


async def test_an_engine_that_has_the_manifest_says_which_image_it_is(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.image = None

    assert (await images.opened(chain(0), LABELS)).layer == image().layers[0]
    assert f"manifest registry.test/team/app {digest_of(b'manifest')}" in mirror.asked


@pytest.mark.parametrize(
    "changed", [{IMAGE_LABEL: "Not A Name"}, {MANIFEST_LABEL: "latest"}, {IMAGE_LABEL: ""}]
)
async def test_labels_that_say_nothing_are_passed_over(
    images: LazyImages, mirror: ToldMirror, changed: dict[str, str]
) -> None:
    mirror.image = None

    with pytest.raises(Declined):
        await images.opened(chain(0), {**LABELS, **changed})
    assert mirror.asked == ["image"]


async def test_what_starts_read_elsewhere_comes_with_a_layer(
    images: LazyImages, mirror: ToldMirror
) -> None:
    assert (await images.opened(chain(0), {})).expected == [5, 3]
    assert (await images.opened(chain(1), {})).expected == []


async def test_without_traces_a_layer_is_shown_all_the_same(
    images: LazyImages, mirror: ToldMirror
) -> None:
    mirror.trace_fault = MirrorFault("away")

    assert (await images.opened(chain(0), {})).expected == []


async def test_what_was_opened_long_ago_takes_no_room(mirror: ToldMirror, tmp_path: Path) -> None:
    now_s = [0.0]
    images = LazyImages(
        mirror,  # type: ignore[arg-type]  # what is used of one
        tmp_path / "opening",
        open_s=50,
        clock=lambda: now_s[0],
    )
    await images.opened(chain(0), {})
    (first,) = (tmp_path / "opening").iterdir()

    now_s[0] = KEPT_S + 1  # not asked for any more, and somebody may be linking to its files
    await images.opened(chain(0), {})
    assert first.exists()

    now_s[0] = 2 * KEPT_S + 2
    await images.opened(chain(0), {})
    assert not first.exists()
    assert len(list((tmp_path / "opening").iterdir())) == 2
    await images.close()
