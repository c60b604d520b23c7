"""Opens the layers of an image that an engine asks for: all of them, or none.

An engine that is refused one layer fetches that one and all above it (containerd's unpacker), so
what is decided for the first layer that is asked for holds for the whole pull.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cachetools import TTLCache

from p2pdist.errors import P2pdistError
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.model.layer_index import INDEXED_BYTES_MIN
from p2pdist.oci.layered_image import ImageLayer, LayeredImage
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import parse_reference
from p2pdist.process import logs
from p2pdist.process.files import write_whole
from p2pdist.process.tasks import TaskOwner
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.opening import believed_index, index_of_file
from p2pdist.streaming.snapshotter.mirror import Mirror, MirrorFault
from p2pdist.streaming.snapshotter.opened import OpenedLayer

log = logging.getLogger(__name__)

OPEN_S: Final = 2.0
"""How long an engine waits for the indexes of an image before it pulls it as ever."""
ASK_AGAIN_S: Final = 0.1
AT_A_TIME: Final = 8
IMAGES_MAX: Final = 32
IMAGE_LABEL: Final = "containerd.io/snapshot/cri.image-ref"
MANIFEST_LABEL: Final = "containerd.io/snapshot/cri.manifest-digest"
"""What some engines say beside a chain ID (containerd, `pkg/snapshotters/annotations.go`): of use
where they have manifest and config from before, and did not ask the mirror for them."""
KEPT_S: Final = 600.0
"""What was decided, for the further layers of a pull, and for one that is tried again."""


def named_by(labels: Mapping[str, str]) -> tuple[ImageName, Digest] | None:
    """The image that an engine says it is pulling, and the digest of its manifest."""
    try:
        name = parse_reference(labels.get(IMAGE_LABEL, "")).name
        return name, parse_digest(labels.get(MANIFEST_LABEL, ""))
    except ValueError:
        return None


class Declined(P2pdistError):
    """An image is pulled as ever; the text says why."""


@dataclass(slots=True)
class _Opening:
    image: LayeredImage
    directory: Path
    layers: asyncio.Future[dict[Digest, OpenedLayer]] = field(default_factory=asyncio.Future)
    """By chain ID; or Declined."""
    asked: bool = False
    """An engine wants it; else it is only likely to."""


class LazyImages:
    """`directory`: for what is opened; it is emptied when this begins."""

    def __init__(
        self,
        mirror: Mirror,
        directory: Path,
        *,
        open_s: float = OPEN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outcomes = {"lazy": 0, "declined": 0}
        """Images that were opened, by what was decided."""
        self._mirror = mirror
        self._directory = directory
        self._open_s = open_s
        self._clock = clock
        self._tasks = TaskOwner("lazy images")
        self._openings: TTLCache[tuple[Digest, ...], _Opening] = TTLCache(IMAGES_MAX, KEPT_S, clock)
        """By the chain IDs of the layers that the image has."""
        self._by_chain: TTLCache[Digest, _Opening] = TTLCache(IMAGES_MAX * 128, KEPT_S, clock)
        self._made_s: dict[Path, float] = {}
        """When the directories of openings were made."""
        self._slots = asyncio.Semaphore(AT_A_TIME)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)

    async def close(self) -> None:
        await self._tasks.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def opening(self) -> int:
        """How many images are being opened."""
        return len(self._tasks)

    async def opened(self, chain: Digest, labels: Mapping[str, str]) -> OpenedLayer:
        """Return the layer that a chain ID stands for, once all of its image can be shown; `labels`
        may say which image that is. Raises Declined."""
        opening = self._by_chain.get(chain)
        if opening is None:
            opening = await self._begin(chain, labels)
        opening.asked = True
        layers = await asyncio.shield(opening.layers)
        return layers[chain]

    async def all_of(self, image: LayeredImage) -> list[OpenedLayer]:
        """Return the layers of an image, from the lowest up, once all can be shown. Raises
        Declined."""
        opening = self._opening_of(image)
        opening.asked = True
        layers = await asyncio.shield(opening.layers)
        return [layers[layer.chain_id] for layer in image.layers]

    def expect(self, image: LayeredImage) -> None:
        """Open an image that is likely to be asked for in a moment; without waiting."""
        self._opening_of(image)

    async def _begin(self, chain: Digest, labels: Mapping[str, str]) -> _Opening:
        try:
            image = await self._mirror.image_of_chain(chain)
            if image is None and (named := named_by(labels)) is not None:
                await self._mirror.manifest(*named)
                image = await self._mirror.image_of_chain(chain)
        except MirrorFault as error:
            raise Declined(str(error)) from None
        if image is None:
            raise Declined("the mirror was not asked for an image with this layer")
        if all(layer.chain_id != chain for layer in image.layers):
            raise Declined("the mirror tells of another image")
        return self._opening_of(image)

    def _opening_of(self, image: LayeredImage) -> _Opening:
        chains = tuple(layer.chain_id for layer in image.layers)
        opening = self._openings.get(chains)
        if opening is None:
            opening = _Opening(image, self._directory / secrets.token_hex(8))
            self._openings[chains] = opening
            self._made_s[opening.directory] = self._clock()
            self._tasks.start(self._open(opening), name=str(image.name))
        for of_image in chains:
            self._by_chain[of_image] = opening
        return opening

    async def _open(self, opening: _Opening) -> None:
        image = opening.image
        try:
            async with asyncio.timeout(self._open_s):
                await asyncio.to_thread(_begin_in, opening.directory, self._outlived())
                found = await self._all_layers(opening)
            opening.layers.set_result(found)
        except TimeoutError:
            self._decline(opening, f"not all of its indexes came within {self._open_s:g} s")
        except (P2pdistError, OSError) as error:
            self._decline(opening, str(error))
        except BaseException:
            self._decline(opening, "the snapshotter ends, or failed")
            raise
        else:
            self.outcomes["lazy"] += 1
            logs.event(log, logging.INFO, "image.lazy", image=str(image.name), layers=len(found))

    def _outlived(self) -> list[Path]:
        """The directories of which nobody has been able to ask for anything for a while; what is
        shown has links to their files."""
        oldest_s = self._clock() - 2 * KEPT_S
        old = [path for path, made_s in self._made_s.items() if made_s < oldest_s]
        for path in old:
            del self._made_s[path]
        return old

    def _decline(self, opening: _Opening, why: str) -> None:
        if not opening.asked:  # whoever asks for it later may find that it can be shown
            self._forget(opening)
            opening.layers.cancel()
            return
        self.outcomes["declined"] += 1
        logs.event(log, logging.INFO, "image.declined", image=str(opening.image.name), error=why)
        opening.layers.set_exception(Declined(why))
        opening.layers.exception()  # it may be that nobody waits for it any more

    def _forget(self, opening: _Opening) -> None:
        chains = tuple(layer.chain_id for layer in opening.image.layers)
        for chain in chains:
            if self._by_chain.get(chain) is opening:
                del self._by_chain[chain]
        if self._openings.get(chains) is opening:
            del self._openings[chains]

    async def _all_layers(self, opening: _Opening) -> dict[Digest, OpenedLayer]:
        large = sum(layer.size_bytes >= INDEXED_BYTES_MIN for layer in opening.image.layers)
        answers = _Answers(large)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    layer.chain_id: group.create_task(self._layer(opening, number, answers))
                    for number, layer in enumerate(opening.image.layers)
                }
        except* (P2pdistError, OSError) as errors:
            raise Declined(str(errors.exceptions[0])) from None
        return {chain: task.result() for chain, task in tasks.items()}

    async def _layer(self, opening: _Opening, number: int, answers: _Answers) -> OpenedLayer:
        image, layer = opening.image, opening.image.layers[number]
        place = opening.directory / f"{number}.index"
        if layer.size_bytes < INDEXED_BYTES_MIN:
            async with self._slots:
                body = await self._mirror.small_blob(image.name, layer.digest)
            return await asyncio.to_thread(_whole, image, layer, place, body)
        body, expected = await asyncio.gather(
            self._index(image, layer, answers), self._expected(layer)
        )
        return await asyncio.to_thread(_by_index, image, layer, place, body, expected)

    async def _expected(self, layer: ImageLayer) -> list[int]:
        try:
            return await self._mirror.trace(layer.digest)
        except MirrorFault:  # a hint, and no more
            return []

    async def _index(self, image: LayeredImage, layer: ImageLayer, answers: _Answers) -> bytes:
        """Ask until it is there, unless not one layer of the image has any: then nobody has pulled
        it yet, and none is in the making."""
        while True:
            async with self._slots:
                body = await self._mirror.layer_index(image.name, layer.digest)
            answers.heard(layer.digest, found=body is not None)
            if body is not None:
                return body
            if answers.in_vain:
                raise Declined("no layer of it has an index")
            await asyncio.sleep(ASK_AGAIN_S)


class _Answers:
    """To the question for an index, of all layers that should have one."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._without: set[Digest] = set()
        self._found = False

    @property
    def in_vain(self) -> bool:
        """All were asked for, and none was there."""
        return not self._found and len(self._without) == self._layers

    def heard(self, layer: Digest, *, found: bool) -> None:
        self._found = self._found or found
        if not found:
            self._without.add(layer)


def _begin_in(directory: Path, outlived: Sequence[Path]) -> None:
    """Blocking."""
    for path in outlived:
        shutil.rmtree(path, ignore_errors=True)
    directory.mkdir()


def _by_index(
    image: LayeredImage, layer: ImageLayer, place: Path, body: bytes, expected: list[int]
) -> OpenedLayer:
    """Blocking. Raises Declined, OSError."""
    index = believed_index(
        body, layer=layer.digest, size_bytes=layer.size_bytes, diff_id=layer.diff_id
    )
    if index is None:
        raise Declined(f"the index of {layer.digest} is not of what the image names")
    write_whole(place, body)
    return OpenedLayer(image.name, layer, place, None, index.diff_bytes, expected)


def _whole(image: LayeredImage, layer: ImageLayer, place: Path, body: bytes) -> OpenedLayer:
    """Blocking. Raises Declined, OSError."""
    came = place.with_suffix(".blob")
    came.write_bytes(body)
    try:
        index, blob = index_of_file(came, layer=layer.digest, diff_id=layer.diff_id)
    except UnfitLayer as error:
        raise Declined(f"its layer {layer.digest}: {error}") from None
    with blob.open("rb") as file:
        os.fsync(file.fileno())
    write_whole(place, encode_index(index))
    inflated = blob != came
    return OpenedLayer(image.name, layer, place, blob, index.diff_bytes, inflated=inflated)
