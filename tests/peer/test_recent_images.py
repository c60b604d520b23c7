"""Images that were asked for of late, and what their configs say or do not."""

from __future__ import annotations

import asyncio
import json

import pytest

from p2pdist.errors import RegistryError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import Descriptor, parse_manifest
from p2pdist.oci.names import ImageName
from p2pdist.peer import recent_images
from p2pdist.peer.recent_images import RecentImages
from tests.fakes.registry_images import build_image

NAME = ImageName("docker.io", "library/app")
ONE, OTHER = build_image([b"one"]), build_image([b"other"])
CHAINS = {image.manifest: digest_of(image.layers[0]) for image in (ONE, OTHER)}


class Blobs:
    def __init__(self) -> None:
        self.asked: list[Digest] = []
        self.there = {digest_of(image.config): image.config for image in (ONE, OTHER)}

    async def __call__(self, name: ImageName, blob: Descriptor) -> bytes:
        assert name == NAME
        self.asked.append(blob.digest)
        if blob.digest not in self.there:
            raise RegistryError(404, "BLOB_UNKNOWN", "not today")
        return self.there[blob.digest]


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def images() -> RecentImages:
    made = RecentImages()
    for image in (ONE, OTHER):
        made.note(NAME, digest_of(image.manifest), parse_manifest(image.manifest, image.media_type))
    return made


async def test_a_config_is_read_when_it_is_needed_and_once(
    images: RecentImages, blobs: Blobs
) -> None:
    for _ in range(3):
        assert await images.of_chain(CHAINS[OTHER.manifest], blobs) is not None
    assert blobs.asked == [digest_of(OTHER.config)], "the one asked for last"

    assert await images.of_chain(digest_of(b"nobody's"), blobs) is None
    assert await images.of_chain(CHAINS[ONE.manifest], blobs) is not None
    assert blobs.asked == [digest_of(OTHER.config), digest_of(ONE.config)]


async def test_a_config_that_does_not_come_is_asked_for_again_after_a_while(
    images: RecentImages, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = blobs.there.pop(digest_of(OTHER.config))
    for _ in range(3):
        assert await images.of_chain(CHAINS[ONE.manifest], blobs) is not None
    assert blobs.asked.count(digest_of(OTHER.config)) == 1, "it holds up nobody again"

    blobs.there[digest_of(OTHER.config)] = body
    assert await images.of_chain(CHAINS[OTHER.manifest], blobs) is None
    monkeypatch.setattr(recent_images, "FAILED_S", 0.0)

    assert await images.of_chain(CHAINS[OTHER.manifest], blobs) is not None


async def test_what_is_no_image_is_not_looked_at_again(blobs: Blobs) -> None:
    images = RecentImages()
    manifest = json.loads(ONE.manifest)
    blobs.there[digest_of(b"[]")] = b"[]"
    manifest["config"] |= {"digest": digest_of(b"[]"), "size": 2}
    body = json.dumps(manifest).encode()
    images.note(NAME, digest_of(body), parse_manifest(body))

    for _ in range(2):
        assert await images.of_chain(CHAINS[ONE.manifest], blobs) is None
    assert len(blobs.asked) == 1


async def test_two_questions_at_once_hurt_nobody(images: RecentImages, blobs: Blobs) -> None:
    asked = (images.of_chain(chain, blobs) for chain in CHAINS.values())

    assert None not in await asyncio.gather(*asked)


async def test_an_image_is_known_by_its_config(images: RecentImages, blobs: Blobs) -> None:
    found = await images.of_config(NAME, digest_of(ONE.config), blobs)

    assert found is not None
    assert [layer.digest for layer in found.layers] == [digest_of(layer) for layer in ONE.layers]
    other = ImageName("docker.io", "library/other")
    assert await images.of_config(other, digest_of(ONE.config), blobs) is None
    assert await images.of_config(NAME, digest_of(b"a layer"), blobs) is None
    assert blobs.asked == [digest_of(ONE.config)]


async def test_an_image_is_known_by_its_manifest(images: RecentImages, blobs: Blobs) -> None:
    found = await images.of_manifest(NAME, digest_of(ONE.manifest), blobs)

    assert found is not None
    assert [layer.digest for layer in found.layers] == [digest_of(layer) for layer in ONE.layers]
    other = ImageName("docker.io", "library/other")
    assert await images.of_manifest(other, digest_of(ONE.manifest), blobs) is None
    assert await images.of_manifest(NAME, digest_of(b"an index"), blobs) is None
    assert blobs.asked == [digest_of(ONE.config)]
