"""What a snapshotter asks of the mirror of its host."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote

import aiohttp

from p2pdist.errors import P2pdistError
from p2pdist.model.ids import Digest, digest_algorithm, digest_of
from p2pdist.model.layer_index import INDEX_BYTES_MAX, INDEXED_BYTES_MIN
from p2pdist.oci import traces, wanted_images
from p2pdist.oci.layered_image import BODY_BYTES_MAX, QUESTION, LayeredImage, decode_layered_image
from p2pdist.oci.names import ImageName
from p2pdist.oci.wanted_images import WantedImage, decode_wanted_image
from p2pdist.registry.ports import FILL_HEADER, HELD_HEADER

ANSWER_S: Final = 10.0
WANTED_S: Final = wanted_images.WAIT_S + ANSWER_S


class MirrorFault(P2pdistError):
    """No answer, or none that can be used; the text says which."""


class Mirror:
    """Bodies are bounded, and checked as far as they can be by themselves."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")

    async def image_of_chain(self, chain: Digest) -> LayeredImage | None:
        """Return the image with this layer that was pulled here of late; None: none. Raises
        MirrorFault."""
        body = await self._get(f"{QUESTION}?chain={quote(chain)}", BODY_BYTES_MAX)
        if body is None:
            return None
        try:
            return decode_layered_image(body)
        except ValueError as error:
            raise MirrorFault(f"{self._endpoint} tells of no image: {error}") from None

    async def manifest(self, name: ImageName, digest: Digest) -> None:
        """Have it told of an image; raise MirrorFault."""
        await self._get(self._url(name, "manifests", digest), 1 << 23)

    async def layer_index(self, name: ImageName, layer: Digest) -> bytes | None:
        """Return the index of a layer, None where there is none (yet). Raises MirrorFault."""
        return await self._get(self._url(name, "_p2pdist/layer-index", layer), INDEX_BYTES_MAX)

    async def small_blob(self, name: ImageName, digest: Digest) -> bytes:
        """Return a blob of less than INDEXED_BYTES_MIN; raise MirrorFault."""
        body = await self._get(self._url(name, "blobs", digest), INDEXED_BYTES_MIN)
        if body is None:
            raise MirrorFault(f"{digest} of {name} is not there")
        if digest_of(body, digest_algorithm(digest)) != digest:
            raise MirrorFault(f"{digest} of {name} came with other bytes")
        return body

    async def trace(self, layer: Digest) -> list[int]:
        """Return what starts read of a layer elsewhere; nothing where nobody knows. Raises
        MirrorFault."""
        body = await self._get(f"{traces.QUESTION}?layer={quote(layer)}", traces.BODY_BYTES_MAX)
        try:
            return traces.decode_trace(body) if body is not None else []
        except ValueError as error:
            raise MirrorFault(f"{self._endpoint} tells of no trace: {error}") from None

    async def tell_trace(self, layer: Digest, units: list[int]) -> None:
        """Tell what a start read of a layer. Raises MirrorFault."""
        url = f"{self._endpoint}{traces.QUESTION}?layer={quote(layer)}"
        body = traces.encode_trace(units)
        try:
            async with asyncio.timeout(ANSWER_S), self._session.post(url, data=body) as answer:
                if answer.status >= 500:
                    raise MirrorFault(f"{self._endpoint} answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._silent(error) from None

    async def wanted_image(self) -> WantedImage | None:
        """Wait for an image that an engine is about to pull; None: ask again. Raises
        MirrorFault."""
        target = wanted_images.WANTED
        return self._wanted(await self._get(target, wanted_images.BODY_BYTES_MAX, WANTED_S))

    async def coming_image(self, after: int | None) -> WantedImage | None:
        """Wait for an image that an engine with a snapshotter has asked for, after that number;
        None: ask again. Raises MirrorFault."""
        target = wanted_images.COMING + (f"?after={after}" if after is not None else "")
        return self._wanted(await self._get(target, wanted_images.BODY_BYTES_MAX, WANTED_S))

    async def settle_wanted(self, number: int) -> None:
        """Tell that whoever pulls that image need not wait any more. Raises MirrorFault."""
        url = f"{self._endpoint}{wanted_images.WANTED}?number={number}"
        try:
            async with asyncio.timeout(ANSWER_S), self._session.post(url):
                pass
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._silent(error) from None

    async def fill(self, name: ImageName, layer: Digest) -> bool:
        """Have all of a layer come to this host in time; whether it is here. Raises MirrorFault."""
        url, headers = self._endpoint + self._url(name, "blobs", layer), {FILL_HEADER: "1"}
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._session.head(url, headers=headers) as answer,
            ):
                if answer.status != 200:
                    raise MirrorFault(f"{self._endpoint} answers {answer.status}")
                return answer.headers.get(HELD_HEADER) == "1"
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._silent(error) from None

    def _wanted(self, body: bytes | None) -> WantedImage | None:
        try:
            return decode_wanted_image(body) if body else None
        except ValueError as error:
            raise MirrorFault(f"{self._endpoint} tells of no image: {error}") from None

    def _silent(self, error: Exception) -> MirrorFault:
        return MirrorFault(
            f"{self._endpoint} does not answer: {str(error) or type(error).__name__}"
        )

    def _url(self, name: ImageName, kind: str, target: str) -> str:
        return f"/v2/{name.repository}/{kind}/{target}?ns={quote(name.upstream)}"

    async def _get(self, target: str, bytes_max: int, answer_s: float = ANSWER_S) -> bytes | None:
        """Return a body, empty for 204; None for 404. Raises MirrorFault."""
        try:
            async with (
                asyncio.timeout(answer_s),
                self._session.get(self._endpoint + target) as answer,
            ):
                if answer.status == 404:
                    return None
                if answer.status not in (200, 204):
                    raise MirrorFault(f"{self._endpoint} answers {answer.status}")
                body = bytearray()
                async for data in answer.content.iter_chunked(1 << 18):
                    body += data
                    if len(body) > bytes_max:
                        raise MirrorFault(f"more than {bytes_max} bytes of {target[:200]}")
                return bytes(body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._silent(error) from None
