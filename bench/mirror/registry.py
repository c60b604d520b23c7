"""A registry with one image of one layer, at a set rate, that notes when its bytes went out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from p2pdist.demo.image import MANIFEST_TYPE
from p2pdist.model.ids import Digest, digest_of

PIECE_BYTES = 64 * 1024


@dataclass
class Sent:
    """When a body had reached a given size, in seconds of the event loop's clock."""

    began_s: float
    at_s: list[tuple[int, float]] = field(default_factory=list)

    def reached_s(self, nbytes: int) -> float:
        return next(at_s for total, at_s in self.at_s if total >= nbytes)


class PacedRegistry:
    """Serves `layer` at `bytes_per_s` and everything else at once."""

    def __init__(self, manifest: bytes, small: dict[Digest, bytes], layer: bytes) -> None:
        self.bytes_per_s = 20e6
        self.bodies: list[Sent] = []
        self._manifest = manifest
        self._small = small
        self._layer = layer
        self._layer_digest = digest_of(layer)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/", self._ping)
        app.router.add_get("/v2/{name:.+}/manifests/{reference}", self._serve_manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._serve_blob)
        return app

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _serve_manifest(self, request: web.Request) -> web.Response:
        digest = digest_of(self._manifest)
        headers = {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": digest}
        return web.Response(body=self._manifest, headers=headers)

    async def _serve_blob(self, request: web.Request) -> web.StreamResponse:
        digest = Digest(request.match_info["digest"])
        if digest in self._small:
            return web.Response(body=self._small[digest])
        response = web.StreamResponse()
        response.content_length = len(self._layer)
        await response.prepare(request)
        if request.method != "HEAD":
            await self._pace(response)
        return response

    async def _pace(self, response: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        sent = Sent(loop.time())
        self.bodies.append(sent)
        view = memoryview(self._layer)
        for start in range(0, len(view), PIECE_BYTES):
            due_s = sent.began_s + start / self.bytes_per_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await response.write(view[start : start + PIECE_BYTES])
            sent.at_s.append((min(start + PIECE_BYTES, len(view)), loop.time()))
