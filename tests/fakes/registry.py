"""A registry on a loopback socket that counts what it serves and fails as it is told.

    async with FakeRegistry() as registry:
        image = registry.add_image("library/app", "1", layers=[b"one", b"two"])
        registry.faults[image.layer_digests[0]] = Fault(stall_after=1)

A second port plays the object storage that real registries redirect blobs to.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import OCI_INDEX, OCI_MANIFEST
from p2pdist.oci.ranges import Partial, Unsatisfiable, parse_range
from tests.fakes.registry_faults import Asked, Fault, TokenAuth
from tests.fakes.registry_images import BuiltImage, ImageInfo, build_image, build_index
from tests.fakes.registry_rights import Rights
from tests.fakes.tag_paging import CursorRefused, Paging, by_last

__all__ = ["Asked", "FakeRegistry", "Fault", "ImageInfo", "TokenAuth"]

_PIECE_BYTES = 64 * 1024
_HEALTHY = Fault()


class FakeRegistry:
    """Serves what was added; attributes may be changed at any time."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """`host`: the address that it binds."""
        self._bound = host
        self.faults: dict[str, Fault] = {}
        """By digest, tag, or path (`/v2/`, `/token`, `/storage/<digest>`)."""
        self.auth: TokenAuth | None = None
        self.basic: tuple[str, str] | None = None
        """User and password of every request, with a Basic challenge."""
        self.rights: Rights | None = None
        """Instead: users, each with repositories of its own."""
        self.asked: list[Asked] = []
        """Every request, in the order in which they came."""
        self.payload_bytes: Counter[str] = Counter()
        """Body bytes that were sent, by digest."""
        self.referrers_supported = True
        self.strict_accept = False
        """A manifest is given only to who accepts its type, or any."""
        self.page_size: int | None = None
        """Tags or referrers per page at most."""
        self.tag_paging: Paging = by_last
        self.link_base = ""
        """What its links to next pages begin with, as in `https://elsewhere.test`."""
        self.bandwidth_bytes_per_s: float | None = None
        self.stalled = asyncio.Event()
        """Set when a stall or hang begins."""
        self.url = ""
        self.storage_url = ""
        self._released = asyncio.Event()
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._tokens: dict[str, str] = {}
        self._token_numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._note(request)

        app = web.Application(middlewares=[answer])
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1,
            max_line_size=1 << 20,  # presigned URLs
        )
        self._runner = runner
        await runner.setup()
        for _ in range(2):
            await web.TCPSite(runner, self._bound, 0).start()
        bound = f"[{self._bound}]" if ":" in self._bound else self._bound
        self.url, self.storage_url = (f"http://{bound}:{at[1]}" for at in runner.addresses)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def host(self) -> str:
        """`host:port`, as image names have it."""
        return self.url.removeprefix("http://")

    # --- content --------------------------------------------------------------------------------

    def add_image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[bytes],
        *,
        docker: bool = False,
        architecture: str = "amd64",
        archives: Sequence[bytes] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> ImageInfo:
        built = build_image(
            layers,
            docker=docker,
            architecture=architecture,
            archives=archives,
            settings=settings,
        )
        self._add_built(repository, built)
        digest = self.add_manifest(repository, built.manifest, built.media_type, tag=tag)
        return ImageInfo(
            repository=repository,
            tag=tag,
            manifest_digest=digest,
            config_digest=digest_of(built.config),
            layer_digests=[digest_of(layer) for layer in built.layers],
            media_type=built.media_type,
            manifest_body=built.manifest,
        )

    def add_index(
        self, repository: str, tag: str, layers: dict[str, Sequence[bytes]], *, docker: bool = False
    ) -> tuple[Digest, list[ImageInfo]]:
        """Add one image per architecture (key of `layers`) and an index over them."""
        built = {arch: build_image(parts, architecture=arch) for arch, parts in layers.items()}
        images = [self.add_image(repository, "", p, architecture=a) for a, p in layers.items()]
        body = build_index([(image, arch) for arch, image in built.items()], docker=docker)
        media_type = json.loads(body)["mediaType"]
        return self.add_manifest(repository, body, media_type, tag=tag), images

    def add_blob(self, repository: str, data: bytes) -> Digest:
        digest = digest_of(data)
        self._blobs[repository, digest] = data
        return digest

    def add_manifest(
        self, repository: str, body: bytes, media_type: str = OCI_MANIFEST, *, tag: str = ""
    ) -> Digest:
        digest = digest_of(body)
        self._manifests[repository, digest] = (media_type, body)
        if tag:
            self._manifests[repository, tag] = (media_type, body)
        return digest

    def answer_manifest(
        self, repository: str, reference: str, body: bytes, media_type: str
    ) -> None:
        """Send `body` for `reference`, whatever its digest."""
        self._manifests[repository, reference] = (media_type, body)

    def remove(self, repository: str, reference: str) -> None:
        """Forget a tag, manifest or blob."""
        self._manifests.pop((repository, reference), None)
        self._blobs.pop((repository, reference), None)

    def _add_built(self, repository: str, built: BuiltImage) -> None:
        for blob in (built.config, *built.layers):
            self.add_blob(repository, blob)

    # --- what was seen --------------------------------------------------------------------------

    def count(self, method: str | None = None, path_part: str = "") -> int:
        """Requests that came, by method and a part of their path."""
        return sum(
            (method is None or asked.method == method) and path_part in asked.path
            for asked in self.asked
        )

    @property
    def payload_total(self) -> int:
        return sum(self.payload_bytes.values())

    def release(self) -> None:
        """Let stalled and hanging answers go on."""
        self._released.set()

    def revoke_tokens(self) -> None:
        """Reject every token that was given out so far."""
        self._tokens.clear()

    # --- answers --------------------------------------------------------------------------------

    async def _note(self, request: web.Request) -> web.StreamResponse:
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        query, headers = dict(request.query), dict(request.headers)
        asked = Asked(request.method, request.path, query, headers, port=port)
        self.asked.append(asked)
        response = await self._answer(request)
        asked.status = response.status
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")
        fault = self._fault(request.path, parts[-1])
        if fault.hang:
            await self._stall()
        if fault.status is not None:
            return self._error(fault.status, "UNSUPPORTED", fault)
        if request.method == "HEAD" and fault.no_head is not None:
            return web.Response(status=fault.no_head)
        if parts[1:2] == ["token"]:
            return await self._token(request)
        if parts[1:2] == ["storage"]:
            if hdrs.AUTHORIZATION in request.headers:
                return self._error(400, "UNSUPPORTED", fault)  # as S3 does
            return await self._blob(request, "", parts[-1], fault)
        if (refusal := self._unauthorized(request, "/".join(parts[2:-2]))) is not None:
            return refusal
        if fault.redirect is not None:
            location = fault.redirect.replace("{digest}", parts[-1])
            return web.Response(status=307, headers={hdrs.LOCATION: location})
        return await self._content(request, parts, fault)

    async def _content(
        self, request: web.Request, parts: list[str], fault: Fault
    ) -> web.StreamResponse:
        match parts:
            case ["", "v2", ""]:
                return web.json_response({})
            case ["", "v2", *name, "manifests", reference]:
                return await self._manifest(request, "/".join(name), reference, fault)
            case ["", "v2", *name, "blobs", digest]:
                return await self._blob(request, "/".join(name), digest, fault)
            case ["", "v2", *name, "tags", "list"]:
                return self._tags(request, "/".join(name))
            case ["", "v2", *name, "referrers", digest] if self.referrers_supported:
                return self._referrers(request, "/".join(name), digest)
            case _:
                return self._error(404, "NAME_UNKNOWN", fault)

    async def _manifest(
        self, request: web.Request, repository: str, reference: str, fault: Fault
    ) -> web.StreamResponse:
        found = self._manifests.get((repository, reference))
        if found is None:
            known = any(key[0] == repository for key in self._manifests)
            return self._error(404, "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN", fault)
        media_type, body = found
        accepted = request.headers.get(hdrs.ACCEPT, "*/*")
        if self.strict_accept and media_type not in accepted and "*/*" not in accepted:
            return self._error(404, "MANIFEST_UNKNOWN", fault)
        headers = {"Content-Type": fault.content_type or media_type}
        return await self._send(request, body, headers, fault)

    async def _blob(
        self, request: web.Request, repository: str, digest: str, fault: Fault
    ) -> web.StreamResponse:
        blobs = {d: data for (r, d), data in self._blobs.items() if repository in ("", r)}
        if digest not in blobs:
            return self._error(404, "BLOB_UNKNOWN", fault)
        return await self._send(request, blobs[digest], {}, fault)

    async def _send(
        self, request: web.Request, data: bytes, headers: dict[str, str], fault: Fault
    ) -> web.StreamResponse:
        digest = digest_of(data)
        if fault.until_close and request.method != "HEAD":
            return await self._send_until_close(request, data, digest)
        wanted = None if fault.ignore_range else request.headers.get(hdrs.RANGE)
        asked = parse_range(wanted, None, "", len(data))
        refused = fault.refuse_range and isinstance(asked, Partial)
        if refused or isinstance(asked, Unsatisfiable):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
        start, stop = (asked.start, asked.stop) if isinstance(asked, Partial) else (0, len(data))
        response = web.StreamResponse(
            status=206 if isinstance(asked, Partial) else 200, headers=headers | fault.headers
        )
        if isinstance(asked, Partial) and fault.content_range != "":
            total = "*" if fault.no_total else len(data)
            told = fault.content_range or f"bytes {start}-{stop - 1}/{total}"
            response.headers[hdrs.CONTENT_RANGE] = told
        if fault.digest_header != "":
            response.headers["Docker-Content-Digest"] = fault.digest_header or digest
        if request.method == "HEAD" and fault.head_length is not None:
            response.content_length = fault.head_length
        elif fault.no_length or fault.until_close:
            response.enable_chunked_encoding()
        else:
            response.content_length = stop - start
        await response.prepare(request)
        if request.method != "HEAD":
            await self._send_body(request, response, _spoilt(data, fault)[start:stop], fault)
        return response

    async def _send_until_close(
        self, request: web.Request, data: bytes, digest: str
    ) -> web.StreamResponse:
        """Past aiohttp, which knows no such bodies in HTTP/1.1."""
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)
        self.payload_bytes[digest] += len(data)
        request.transport.close()
        return web.Response()

    async def _send_body(
        self, request: web.Request, response: web.StreamResponse, data: bytes, fault: Fault
    ) -> None:
        digest = request.path.rpartition("/")[2]
        limit = min(
            (n for n in (fault.stall_after, fault.truncate_after) if n is not None),
            default=len(data),
        )
        rate = fault.bytes_per_s or self.bandwidth_bytes_per_s
        for at in range(0, min(limit, len(data)), _PIECE_BYTES):
            piece = data[at : min(at + _PIECE_BYTES, limit)]
            await response.write(piece)
            self.payload_bytes[digest] += len(piece)
            if rate:
                await asyncio.sleep(len(piece) / rate)
        if limit < len(data) and fault.truncate_after is None:
            await self._stall()
            await response.write(data[limit:])
            self.payload_bytes[digest] += len(data) - limit
        elif limit < len(data) and request.transport is not None:
            request.transport.close()

    async def _stall(self) -> None:
        self.stalled.set()
        await self._released.wait()

    def _tags(self, request: web.Request, repository: str) -> web.Response:
        tags = sorted(ref for r, ref in self._manifests if r == repository and ":" not in ref)
        if not any(r == repository for r, _ in self._manifests):
            return self._error(404, "NAME_UNKNOWN", _HEALTHY)
        count = int(request.query.get("n", self.page_size or len(tags)))
        try:
            page = self.tag_paging(tags, request.query, min(count, self.page_size or count))
        except CursorRefused:
            return self._error(405, "UNSUPPORTED", _HEALTHY)
        response = web.json_response({"name": repository, "tags": page.tags})
        if page.link is not None:
            target = f"{self.link_base}/v2/{repository}/tags/list?{page.link}"
            response.headers[hdrs.LINK] = f'<{target}>; rel="next"'
        return response

    def _referrers(self, request: web.Request, repository: str, digest: str) -> web.Response:
        found = [
            {"mediaType": kind, "digest": digest_of(body), "size": len(body),
             "artifactType": document.get("artifactType", "")}
            for (r, ref), (kind, body) in self._manifests.items()
            if r == repository and ":" in ref
            and (document := json.loads(body)).get("subject", {}).get("digest") == digest
        ]  # fmt: skip
        first = int(request.query.get("from", 0))
        stop = first + (self.page_size or len(found))
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[first:stop]}
        response = web.json_response(document, content_type=OCI_INDEX)
        if stop < len(found):
            response.headers[hdrs.LINK] = f'<{request.path}?from={stop}>; rel="next"'
        return response

    def _error(self, status: int, code: str, fault: Fault) -> web.Response:
        body = {"errors": [{"code": code, "message": "a fake error"}]}
        return web.json_response(body, status=status, headers=fault.headers)

    def _fault(self, *keys: str) -> Fault:
        fault = next((self.faults[key] for key in keys if key in self.faults), _HEALTHY)
        return _HEALTHY if fault.spent() else fault

    # --- who may ask ----------------------------------------------------------------------------

    def _unauthorized(self, request: web.Request, repository: str) -> web.Response | None:
        given = request.headers.get(hdrs.AUTHORIZATION, "")
        if self.rights is not None:
            wanted = self.rights.wanted(given, repository, f"{self.url}/token")
            return None if wanted is None else self._challenge([wanted])
        if self.basic is not None and given != _basic(*self.basic):
            return self._challenge(['Basic realm="fake"'])
        auth = self.auth
        if auth is None:
            return None
        scope = f"repository:{repository}:pull"
        if self._tokens.get(given.removeprefix("Bearer ")) in (scope, "*"):
            return None
        realm = auth.realm or f"{self.url}/token"
        challenge = f'Bearer realm="{realm}",service="{auth.service}"'
        if repository:
            challenge += f',scope="{auth.scope or scope}"'
        return self._challenge([*auth.extra_challenges, challenge])

    def _challenge(self, values: Sequence[str]) -> web.Response:
        response = self._error(401, "UNAUTHORIZED", _HEALTHY)
        for value in values:
            response.headers.add(hdrs.WWW_AUTHENTICATE, value)
        return response

    async def _token(self, request: web.Request) -> web.Response:
        if self.rights is not None:
            return self.rights.token(request)
        auth = self.auth
        if auth is None or request.method not in auth.methods:
            return web.Response(status=405)
        if request.method == "POST":
            form = await request.post()
            right = (form.get("username"), form.get("password")) == (auth.username, auth.password)
            right = right or form.get("refresh_token") == auth.password
            scope = str(form.get("scope", ""))
        else:
            given = request.headers.get(hdrs.AUTHORIZATION, "")
            right = given == _basic(auth.username, auth.password)
            scope = request.query.get("scope", "")
        if auth.username and not right:
            return self._challenge([])
        token = f"fake-token-{next(self._token_numbers)}"
        self._tokens[token] = scope if auth.require_scope else "*"
        answer: dict[str, object] = {auth.token_key: token}
        if auth.expires_in is not None:
            answer["expires_in"] = auth.expires_in
        return web.json_response(answer)


def _spoilt(data: bytes, fault: Fault) -> bytes:
    if fault.corrupt_at is None:
        return data
    at = fault.corrupt_at
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
