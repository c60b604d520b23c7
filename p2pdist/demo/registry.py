"""The demonstration's upstream: a small registry that counts what it sends.

Run as `python -m p2pdist.demo.registry --dir DIR --port PORT`; DIR holds `manifest.json` and the
blobs by their hex digest. `GET /stats` tells requests and payload bytes.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Final

from aiohttp import web

from p2pdist.demo.image import MANIFEST_TYPE
from p2pdist.model.ids import digest_of, parse_digest
from p2pdist.oci.errors import error_body
from p2pdist.oci.ranges import Full, Partial, parse_range
from p2pdist.process.opening import opened

PIECE_BYTES: Final = 1 << 20


class DemoRegistry:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifest = (directory / "manifest.json").read_bytes()
        self._digest = digest_of(self._manifest)
        self._sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
        self.payload_bytes = 0
        self.blob_bodies = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/", self._ping)
        app.router.add_get("/stats", self._stats)
        app.router.add_get("/v2/{name:.+}/manifests/{reference}", self._serve_manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._serve_blob)
        return app

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"payload_bytes": self.payload_bytes, "blob_bodies": self.blob_bodies}
        )

    async def _serve_manifest(self, request: web.Request) -> web.Response:
        if request.match_info["reference"] not in ("1", self._digest):
            return _error(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": self._digest}
        return web.Response(body=self._manifest, headers=headers)

    async def _serve_blob(self, request: web.Request) -> web.StreamResponse:
        try:
            digest = parse_digest(request.match_info["digest"])
        except ValueError:
            return _error(400, "DIGEST_INVALID")
        size = self._sizes.get(digest.partition(":")[2])
        if size is None:
            return _error(404, "BLOB_UNKNOWN")
        return await self._send(request, digest, size)

    async def _send(self, request: web.Request, digest: str, size: int) -> web.StreamResponse:
        start, stop, status = 0, size, 200
        headers = {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        asked = parse_range(request.headers.get("Range"), None, f'"{digest}"', size)
        match asked:
            case Partial(start, stop):
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            case Full():
                pass
            case _:
                return _error(416, "SIZE_INVALID")
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = stop - start
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        self.blob_bodies += 1
        path = self._directory / digest.partition(":")[2]
        async with opened(path, "rb") as file:
            file.seek(start)
            while start < stop:
                data = await asyncio.to_thread(file.read, min(PIECE_BYTES, stop - start))
                await response.write(data)
                self.payload_bytes += len(data)
                start += len(data)
        return response


def _error(status: int, code: str) -> web.Response:
    body = error_body(code, code.replace("_", " ").lower())
    return web.Response(status=status, body=body, content_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = DemoRegistry(options.dir).app()
    web.run_app(app, host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
