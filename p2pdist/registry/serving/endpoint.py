"""The `/v2/` pull surface over a `RegistryBackend`: the mirror of a peer and the proxy alike.

Paths are taken as they came on the wire: aiohttp's own routes would decode and normalise them
first, and a registry that answers `..` with a redirect is one that can be walked.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, assert_never

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from p2pdist.errors import CallerRefused, RegistryError
from p2pdist.exchange.upload import Upload
from p2pdist.model.ids import HostId
from p2pdist.oci.callers import read_caller
from p2pdist.oci.manifest import MANIFEST_MEDIA_TYPES
from p2pdist.oci.media_types import accepted_beyond
from p2pdist.oci.names import ImageName
from p2pdist.oci.routes import (
    BlobRoute,
    LayerIndexRoute,
    ManifestRoute,
    NamedRoute,
    Ping,
    ReferrersRoute,
    TagsRoute,
    UnlistedRegistry,
    Unsupported,
    parse_route,
    resolve_name,
    split_target,
)
from p2pdist.oci.wanted_images import has_snapshotters, looks_into_stores
from p2pdist.process.tls import CERTIFICATE
from p2pdist.registry.ports import (
    DEMAND_AGAIN,
    DEMAND_HEADER,
    FILL_HEADER,
    TICKET_HEADER,
    USER_AGENT,
    PullContext,
    RegistryBackend,
    TagPage,
    client_accept,
    client_account,
)
from p2pdist.registry.serving.accounts import account_of
from p2pdist.registry.serving.answers import (
    NAMESPACE,
    REQUEST_ID,
    error_answer,
    etag_matches,
    etag_of,
    json_answer,
    manifest_answer,
    not_modified,
    referrers_answer,
    tags_answer,
)
from p2pdist.registry.serving.blobs import BODIES_MAX, BlobServer
from p2pdist.registry.serving.other_hosts import to_other_host
from p2pdist.registry.serving.pull import Pull, PullRecord, log_pull, outcome_of
from p2pdist.registry.serving.refused import RefusedRequests

_logger = logging.getLogger(__name__)

# Nothing of ours reads a request body.
_REQUEST_BODY_BYTES_MAX: Final = 4096

_NEVER_OF_BLOBS: Final = frozenset({401, 403, 408, 429})

_CONTAINERS_IMAGE: Final = ("skopeo/", "podman/", "buildah/", "libpod/", "cri-o/", "containers/")

_COMMON_HEADERS: Final = {
    "Docker-Distribution-Api-Version": "registry/2.0",
    hdrs.SERVER: "p2pdist",
    "X-Content-Type-Options": "nosniff",
}


class RegistryEndpoint:
    """One `/v2/` surface.

    `upstreams` and `default_upstream` are canonical hosts; the list may change while we run, and
    `renew()` has it looked at again before a registry is refused by it. `proxy_headers()` and
    `ping_body` are the answer to `GET /v2/`; `on_done` hears of each manifest and blob request that
    is over.
    """

    def __init__(
        self,
        backend: RegistryBackend,
        *,
        upstreams: Collection[str],
        default_upstream: str,
        proxy_headers: Callable[[], Mapping[str, str]] = dict,
        ping_body: bytes = b"{}",
        renew: Callable[[], Awaitable[None]] | None = None,
        on_done: Callable[[PullRecord], None] | None = None,
        bodies_max: int = BODIES_MAX,
        upload: Upload | None = None,
        refused: RefusedRequests | None = None,
        by_caller: Callable[[], bool] = lambda: False,
        beside: Mapping[str, Handler] | None = None,
        host_of: Callable[[bytes], HostId | None] = lambda der: None,
    ) -> None:
        """`upload`: the budget of what goes to other hosts. `beside`: handlers of exact paths that
        are no part of `/v2/`, for every method. `by_caller`: a registry of the list decides by the
        credentials of each caller. `host_of`: the host of a certificate (DER), if it is one that
        exchanges blobs with others."""
        self._backend = backend
        self._upload = upload
        self._blobs = BlobServer(backend, bodies_max=bodies_max, upload=upload)
        self._upstreams = upstreams
        self._default_upstream = default_upstream
        self._proxy_headers = proxy_headers
        self._ping_body = ping_body
        self._renew = renew
        self.refused = refused if refused is not None else RefusedRequests()
        self._on_done = on_done
        self._by_caller = by_caller
        self._host_of = host_of
        self._beside = dict(beside or {})

    def app(self) -> web.Application:
        """Return an application that answers every path and method itself."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._answer(request)

        return web.Application(middlewares=[answer], client_max_size=_REQUEST_BODY_BYTES_MAX)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {**_COMMON_HEADERS, REQUEST_ID: secrets.token_hex(8)}
        handler = self._beside.get(request.raw_path.partition("?")[0])
        try:
            if handler is not None:
                return await handler(request)
            return await self._dispatch(request, headers)
        except RegistryError as error:
            return error_answer(error, headers)

    async def _dispatch(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        raw_path, raw_query, query = split_target(request.raw_path)
        route = parse_route(request.method, raw_path, raw_query, query)
        match route:
            case Ping():
                if self._by_caller() and _decides_by_ping(request):
                    raise _who_are_you()
                return json_answer(self._ping_body, {**headers, **self._proxy_headers()})
            case Unsupported():
                raise RegistryError(405, "UNSUPPORTED", "this registry is for pulling only")
        ns = query.get("ns")
        name, sticky = await self._resolve(route, ns)
        if ns is not None:
            headers[NAMESPACE] = ns
        client_account.set(account_of(request.get_extra_info(CERTIFICATE), request.remote or ""))
        try:
            answer = await self._serve(request, route, name, headers, sticky=sticky)
        except CallerRefused as error:
            self.refused.note(name.upstream, error)
            # dockerd answers a challenge of a mirror of Docker Hub with the password for that.
            raise (error if ns is not None or sticky else _unchallenged(error, route)) from None
        except RegistryError as error:
            self.refused.note(name.upstream, error)
            raise
        except Exception:
            # A fault of ours must read as "not here", so that the client goes on to upstream.
            _logger.exception("request.failed", extra={"fields": {"request": headers[REQUEST_ID]}})
            raise RegistryError(404, _unknown_code(route), "internal error") from None
        self._charge(request, answer)
        return answer

    def _charge(self, request: web.Request, answer: web.StreamResponse) -> None:
        """Manifests and lists go at once; bodies of blobs were waited for, and paid."""
        whole = isinstance(answer, web.Response) and request.method != hdrs.METH_HEAD
        if self._upload is not None and whole and to_other_host(request):
            self._upload.owe(answer.content_length or 0)

    async def _resolve(self, route: NamedRoute, ns: str | None) -> tuple[ImageName, bool]:
        """Tell which image is meant. Raises RegistryError; no socket is opened for a registry that
        is not on the list."""
        try:
            return self._resolved(route, ns)
        except UnlistedRegistry:
            if self._renew is not None:
                await self._renew()
        try:
            return self._resolved(route, ns)
        except UnlistedRegistry as error:
            self.refused.note(error.registry, error)
            raise

    def _resolved(self, route: NamedRoute, ns: str | None) -> tuple[ImageName, bool]:
        upstreams, default = self._upstreams, self._default_upstream
        return resolve_name(route.path_name, ns, upstreams=upstreams, default=default)

    async def _serve(
        self,
        request: web.Request,
        route: NamedRoute,
        name: ImageName,
        headers: Mapping[str, str],
        *,
        sticky: bool,
    ) -> web.StreamResponse:
        caller = read_caller(request.headers.getall(hdrs.AUTHORIZATION, ()))
        context = PullContext(headers[REQUEST_ID], sticky=sticky, caller=caller)
        if isinstance(route, LayerIndexRoute):  # a blob like any other, once it is known which
            index = await self._backend.layer_index(name, route.digest, context)
            route = BlobRoute(route.path_name, index)
        match route:
            case ManifestRoute() | BlobRoute():
                context.demand = _demands_part(request)
                context.doubts = _doubts_part(request)
                pull = Pull(route, name, context, headers)
                pull.head = request.method == hdrs.METH_HEAD
                context.finds_layers = _is_engine(request, looks_into_stores)
                context.has_snapshotter = not pull.head and _is_engine(request, has_snapshotters)
                context.fill = pull.head and request.headers.get(FILL_HEADER) == "1"
                if pull.head and request.headers.get(TICKET_HEADER) == "1":
                    certificate: bytes | None = request.get_extra_info(CERTIFICATE)
                    context.ticket_for = self._host_of(certificate) if certificate else None
                pull.by_node = request.headers.get(hdrs.USER_AGENT) == USER_AGENT
                return await self._pull(request, pull)
            case TagsRoute(count=0):
                return tags_answer(route, TagPage([]), headers)
            case TagsRoute():
                page = await self._backend.tags(name, route.query, context)
                return tags_answer(route, page, headers)
            case ReferrersRoute():
                listed = await self._backend.referrers(
                    name, route.digest, route.artifact_type, context
                )
                return referrers_answer(route, listed, headers)
            case _:
                assert_never(route)

    async def _pull(self, request: web.Request, pull: Pull) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            if isinstance(pull.route, BlobRoute):
                response = await self._blobs.answer(request, pull)
            else:
                response = await self._manifest(request, pull, pull.route)
        except RegistryError as error:
            blob = isinstance(pull.route, BlobRoute) and not isinstance(error, CallerRefused)
            refusal = _blob_refusal(error) if blob else error
            pull.status, pull.outcome = refusal.status, outcome_of(error)
            raise refusal from error
        except Exception:
            pull.status, pull.outcome = 404, "failed"
            raise
        else:
            if not pull.status:
                pull.status = response.status
                pull.outcome = "served" if response.status < 400 else "refused"
            return response
        finally:
            self._finish(pull.record(loop.time() - started_s))

    async def _manifest(
        self, request: web.Request, pull: Pull, route: ManifestRoute
    ) -> web.StreamResponse:
        """A Range is ignored: containerd 2.1 asks manifests for `bytes=0-` and takes 200."""
        accepted = request.headers.getall(hdrs.ACCEPT, ())
        client_accept.set(accepted_beyond(accepted, MANIFEST_MEDIA_TYPES))
        manifest = await self._backend.manifest(pull.name, route.reference, pull.context)
        known = request.headers.getall(hdrs.IF_NONE_MATCH, ())
        if etag_matches(known, etag_of(manifest.digest)):
            return not_modified(manifest.digest, pull.headers, fixed=route.by_digest)
        if not pull.head:
            pull.sent_bytes = len(manifest.body)
            pull.context.bytes_by_source[manifest.source] = len(manifest.body)
        return manifest_answer(manifest, pull.headers, fixed=route.by_digest)

    def _finish(self, record: PullRecord) -> None:
        log_pull(record)
        if self._on_done is not None:
            self._on_done(record)


def _decides_by_ping(request: web.Request) -> bool:
    """containers/image (Podman, Skopeo, Buildah, CRI-O) sends credentials only where `/v2/` itself
    asked for some; the empty account, where it has none."""
    agent = request.headers.get(hdrs.USER_AGENT, "").lower()
    known = agent.startswith(_CONTAINERS_IMAGE) or "containers/image" in agent
    return known and hdrs.AUTHORIZATION not in request.headers


def _who_are_you() -> CallerRefused:
    """Basic: what a token service grants is for names without our registry in front."""
    text = "say who you are, for registries that decide by it"
    return CallerRefused(401, "UNAUTHORIZED", text, challenges=['Basic realm="p2pdist"'])


def _unchallenged(error: CallerRefused, route: NamedRoute) -> RegistryError:
    if isinstance(route, BlobRoute | LayerIndexRoute):
        return RegistryError(404, "BLOB_UNKNOWN", str(error), reason=error.reason)
    return RegistryError(403, "DENIED", str(error), reason=error.reason)


def _demands_part(request: web.Request) -> bool:
    """Without a range the whole blob is asked for, whatever else is said."""
    said = request.headers.get(DEMAND_HEADER)
    return hdrs.RANGE in request.headers and said in ("1", DEMAND_AGAIN)


def _doubts_part(request: web.Request) -> bool:
    """Only whoever is on this host may have it hash something anew."""
    again = _demands_part(request) and request.headers.get(DEMAND_HEADER) == DEMAND_AGAIN
    return again and not to_other_host(request)


def _is_engine(request: web.Request, called: Callable[[str], bool]) -> bool:
    """Whether it is one of this host, by what it calls itself."""
    return called(request.headers.get(hdrs.USER_AGENT, "")) and not to_other_host(request)


def _blob_refusal(error: RegistryError) -> RegistryError:
    """Whatever keeps us from serving a blob reads "not here".

    dockerd spends 75 s on a blob's 5xx before it goes elsewhere, containerd answers 408 and 429
    with six requests at once. Only a request that is wrong in itself is told so.
    """
    if error.reason is None and error.status not in _NEVER_OF_BLOBS and error.status < 500:
        return error
    told = RegistryError(404, "BLOB_UNKNOWN", str(error), reason=error.reason)
    told.retry_after_s = error.retry_after_s
    return told


def _unknown_code(route: NamedRoute) -> str:
    match route:
        case BlobRoute():
            return "BLOB_UNKNOWN"
        case ManifestRoute():
            return "MANIFEST_UNKNOWN"
        case LayerIndexRoute():
            return "BLOB_UNKNOWN"
        case TagsRoute() | ReferrersRoute():
            return "NAME_UNKNOWN"
        case _:
            assert_never(route)
