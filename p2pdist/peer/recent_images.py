"""The images whose manifests were asked for of late: what a chain ID of one of them stands for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from cachetools import LRUCache

from p2pdist.errors import RegistryError
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest
from p2pdist.model.layer_index import INDEXED_BYTES_MIN
from p2pdist.oci.image_config import diff_ids_of_config
from p2pdist.oci.layered_image import LayeredImage, layered_image
from p2pdist.oci.manifest import Descriptor, ManifestInfo
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.off_loop import parsed

log = logging.getLogger(__name__)

IMAGES_MAX: Final = 64
"""Pulls of a host within a few minutes; a question may have each one's config read once."""

FAILED_S: Final = 10.0
"""How long a config that did not come is not asked for again: it may be one of many that a question
is about to look at, and somebody waits."""

ReadBlob = Callable[[ImageName, Descriptor], Awaitable[bytes]]
"""All of a small blob; raises RegistryError."""


class RecentImages:
    """An engine that asks for a layer's chain ID has asked for its manifest and config just before,
    and says nothing of either."""

    def __init__(self) -> None:
        self._manifests: LRUCache[tuple[ImageName, Digest], ManifestInfo] = LRUCache(IMAGES_MAX)
        self._images: LRUCache[tuple[ImageName, Digest], LayeredImage | None] = LRUCache(IMAGES_MAX)
        """By the same key; None: it is no image of a container."""
        self._configs: LRUCache[tuple[ImageName, Digest], Digest] = LRUCache(IMAGES_MAX)
        """Of manifests, by their digests."""
        self._failed_s: LRUCache[tuple[ImageName, Digest], float] = LRUCache(IMAGES_MAX)
        """When a config did not come."""

    def note(self, name: ImageName, manifest: Digest, info: ManifestInfo) -> None:
        """`info`: of a manifest that was asked for as one of `name`."""
        if info.kind == "image" and info.config is not None and info.layers:
            key = name, info.config.digest
            self._manifests.pop(key, None)
            self._manifests[key] = info  # behind all others
            self._configs[name, manifest] = info.config.digest

    async def of_chain(self, chain: Digest, read: ReadBlob) -> LayeredImage | None:
        """The one asked for last that has this layer above the same ones; None: none of them."""
        for key, info in reversed(list(self._manifests.items())):
            image = await self._image(key, info, read)
            if image is not None and any(layer.chain_id == chain for layer in image.layers):
                return image
        return None

    def large_layers(self, name: ImageName, manifest: Digest) -> list[Digest]:
        """Those with an index, of the image of `name` that has this manifest."""
        info = self._manifests.get((name, self._configs.get((name, manifest), manifest)))
        layers = info.layers if info is not None else ()
        return [layer.digest for layer in layers if layer.size >= INDEXED_BYTES_MIN]

    async def of_manifest(
        self, name: ImageName, manifest: Digest, read: ReadBlob
    ) -> LayeredImage | None:
        """The one of `name` that has this manifest; None: none that was asked for of late."""
        config = self._configs.get((name, manifest))
        return None if config is None else await self.of_config(name, config, read)

    async def of_config(
        self, name: ImageName, config: Digest, read: ReadBlob
    ) -> LayeredImage | None:
        """The one of `name` that has this config; None: none that was asked for of late."""
        info = self._manifests.get((name, config))
        return None if info is None else await self._image((name, config), info, read)

    async def _image(
        self, key: tuple[ImageName, Digest], info: ManifestInfo, read: ReadBlob
    ) -> LayeredImage | None:
        if key in self._images:
            return self._images[key]
        assert info.config is not None
        found: LayeredImage | None = None
        now_s = asyncio.get_running_loop().time()
        if now_s < self._failed_s.get(key, -FAILED_S) + FAILED_S:
            return None
        try:
            if geometry_for(info.config.size).single:
                diff_ids = await parsed(diff_ids_of_config, await read(key[0], info.config))
                blobs = [(layer.digest, layer.size) for layer in info.layers]
                found = layered_image(key[0], blobs, diff_ids)
        except RegistryError as error:  # it may come another time
            logs.event(log, logging.INFO, "image.no_config", image=str(key[0]), error=str(error))
            self._failed_s[key] = asyncio.get_running_loop().time()
            return None
        except ValueError:
            pass  # an artifact: anybody may put anything there
        self._images[key] = found
        return found
