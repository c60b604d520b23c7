"""The files of an image at a mirror: read through the indexes of its layers, whole where they are
small or have none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.pulling.client import Platform, PullClient, PulledImage, title
from p2pdist.model.ids import Digest
from p2pdist.model.layer_index import INDEXED_BYTES_MIN
from p2pdist.oci.image_config import CONFIG_BYTES_MAX, diff_ids_of_config
from p2pdist.oci.manifest import Descriptor
from p2pdist.oci.reference import Reference
from p2pdist.streaming.core.image_tree import ImageTree, inherit
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.layer_reader import LayerReader
from p2pdist.streaming.opening import believed_index, index_of_file


class RemoteImage:
    """`tree` over `layers`, from the lowest up."""

    def __init__(self, image: PulledImage, layers: Sequence[LayerReader]) -> None:
        """Raises CommandError."""
        self.image = image
        self.layers = layers
        try:
            trees = [LayerTree(layer.index.entries) for layer in layers]
        except UnfitLayer as error:
            raise _unfit(image.reference, str(error)) from None
        inherit(trees)
        self.tree = ImageTree(trees)

    @property
    def fetched_bytes(self) -> int:
        """Of all layers, as they are compressed."""
        return sum(source.fetched_bytes for source in {layer.source for layer in self.layers})

    @property
    def size_bytes(self) -> int:
        return sum(layer.size for layer in self.image.info.layers)


@asynccontextmanager
async def remote_image(
    client: PullClient, reference: Reference, platform: Platform, directory: Path
) -> AsyncIterator[RemoteImage]:
    """Open an image; what has to be fetched whole goes to `directory`. Raises CommandError."""
    image = await client.resolve(reference, platform, directory)
    diff_ids = await _diff_ids(client, image)
    # A layer may stand in an image twice.
    wanted = {
        layer.digest: (layer, diff_id)
        for layer, diff_id in zip(image.info.layers, diff_ids, strict=True)
    }
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as opening:
            tasks = {
                digest: opening.create_task(_layer(client, image, *parts))
                for digest, parts in wanted.items()
            }
        opened = {digest: task.result() for digest, task in tasks.items()}
        for reader in opened.values():
            stack.push_async_callback(reader.close)
        readers = [opened[layer.digest] for layer in image.info.layers]
        yield await asyncio.to_thread(RemoteImage, image, readers)


async def _diff_ids(client: PullClient, image: PulledImage) -> list[Digest]:
    config = image.info.config
    if config is None or config.size > CONFIG_BYTES_MAX:
        raise _unfit(image.reference, "it is no image of a container")
    path = image.path(config.digest)
    await client.blob(image.reference, config, path)
    try:
        diff_ids = diff_ids_of_config(await asyncio.to_thread(path.read_bytes))
    except ValueError as error:
        raise _unfit(image.reference, str(error)) from None
    if len(diff_ids) != len(image.info.layers):
        text = f"it has {len(image.info.layers)} layers, and its config names {len(diff_ids)}"
        raise _unfit(image.reference, text)
    return diff_ids


async def _layer(
    client: PullClient,
    image: PulledImage,
    layer: Descriptor,
    diff_id: Digest,
) -> LayerReader:
    """By its index, if that is of the archive which the config names; else by all of its bytes."""
    if layer.size >= INDEXED_BYTES_MIN:
        body = await client.layer_index(image.reference, layer.digest)
        if body is not None:
            index = await asyncio.to_thread(
                believed_index, body, layer=layer.digest, size_bytes=layer.size, diff_id=diff_id
            )
            if index is not None:
                source = _MirrorSource(client, image.reference, layer.digest)
                return LayerReader(index, source)
    path = image.path(layer.digest)
    await client.blob(image.reference, layer, path)
    try:
        made, path = await asyncio.to_thread(
            index_of_file, path, layer=layer.digest, diff_id=diff_id
        )
    except UnfitLayer as error:
        raise _unfit(image.reference, f"its layer {layer.digest}: {error}") from None
    return LayerReader(made, _FileSource(path, layer.size))


class _MirrorSource:
    def __init__(self, client: PullClient, reference: Reference, digest: Digest) -> None:
        self.fetched_bytes = 0
        self.file: Path | None = None
        self._client = client
        self._reference = reference
        self._digest = digest

    async def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        data = await self._client.blob_range(
            self._reference, self._digest, start, stop, again=again
        )
        self.fetched_bytes += len(data)
        return data


class _FileSource:
    """A layer that was fetched whole."""

    def __init__(self, path: Path, fetched_bytes: int) -> None:
        self.fetched_bytes = fetched_bytes
        self.file: Path | None = path
        self._path = path

    async def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        return await asyncio.to_thread(self._read, start, stop)

    def _read(self, start: int, stop: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


def _unfit(reference: Reference, why: str) -> CommandError:
    return CommandError(
        f"{title(reference)} cannot be read in parts: {why}",
        Exit.UNEXPECTED,
        "pull it, and unpack it with the tools of its kind: p2pdist pull IMAGE -o oci:DIR",
    )
