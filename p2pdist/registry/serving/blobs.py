"""Blob bodies: our own range server over whatever a daemon has in its store or on the way.

Not aiohttp's `FileResponse`: it serves a `.gz` sibling as Content-Encoding gzip, so that digests
break, and answers several ranges, unknown units and If-Range wrongly.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

from aiohttp import hdrs, web

from p2pdist.errors import BlobFailed, ErrorReason, RegistryError
from p2pdist.exchange.accepting import network_of_address
from p2pdist.exchange.upload import Upload
from p2pdist.oci.ranges import Full, Multi, Partial, Unsatisfiable, parse_range
from p2pdist.oci.routes import BlobRoute
from p2pdist.process import logs
from p2pdist.registry.ports import HELD_HEADER, TICKET_HEADER, BlobSource, FileSpan, RegistryBackend
from p2pdist.registry.serving.answers import (
    content_headers,
    error_answer,
    etag_matches,
    etag_of,
    not_modified,
)
from p2pdist.registry.serving.body import BodyWriter, ClientStalled
from p2pdist.registry.serving.body_places import BodyPlace, BodyPlaces
from p2pdist.registry.serving.other_hosts import to_other_host
from p2pdist.registry.serving.pull import Outcome, Pull

_logger = logging.getLogger(__name__)

# 300 hosts with dockerd's three layers at a time fit; a body costs two descriptors.
BODIES_MAX: Final = 1024

# The wait for a free place, out of the 5 s within which a client hears of its blob; a sticky
# client has nowhere else to go.
PLACE_WAIT_S: Final = 4.0
PLACE_WAIT_STICKY_S: Final = 60.0


class BlobServer:
    """Answers GET and HEAD of blobs; at most `bodies_max` bodies at once, others queue."""

    def __init__(
        self,
        backend: RegistryBackend,
        *,
        bodies_max: int = BODIES_MAX,
        upload: Upload | None = None,
    ) -> None:
        self._backend = backend
        self._upload = upload
        self._places = BodyPlaces(bodies_max)

    async def answer(self, request: web.Request, pull: Pull) -> web.StreamResponse:
        """Raise RegistryError as long as no status line went out; afterwards nothing."""
        route = pull.route
        assert isinstance(route, BlobRoute)
        if etag_matches(request.headers.getall(hdrs.IF_NONE_MATCH, ()), etag_of(route.digest)):
            await self._backend.blob_size(pull.name, route.digest, pull.context)
            return not_modified(route.digest, pull.headers, fixed=True)
        if pull.head:
            size = await self._backend.blob_size(pull.name, route.digest, pull.context)
            response = _blob_response(pull, route, 200, size)
            if pull.context.held:
                response.headers[HELD_HEADER] = "1"
            if pull.context.ticket is not None:
                private, record = pull.context.ticket
                response.headers[TICKET_HEADER] = f"{private} {base64.b64encode(record).decode()}"
            return response
        async with self._place(request, sticky=pull.context.sticky) as place:
            source = await self._backend.open_blob(pull.name, route.digest, pull.context)
            try:
                return await self._serve(request, pull, route, source, place)
            finally:
                with _faults_logged(pull):
                    source.close()

    async def _serve(
        self,
        request: web.Request,
        pull: Pull,
        route: BlobRoute,
        source: BlobSource,
        place: BodyPlace,
    ) -> web.StreamResponse:
        size = source.size_bytes
        header, if_range = request.headers.get(hdrs.RANGE), request.headers.get(hdrs.IF_RANGE)
        match parse_range(header, if_range, etag_of(route.digest), size):
            case Unsatisfiable():
                error = RegistryError(416, "SIZE_INVALID", f"range outside of {size} bytes")
                return error_answer(error, {**pull.headers, hdrs.CONTENT_RANGE: f"bytes */{size}"})
            case Partial(start, stop):
                response = _blob_response(pull, route, 206, stop - start)
                response.headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{size}"
            case Full() | Multi():
                start, stop = 0, size
                response = _blob_response(pull, route, 200, size)
        if start < stop:
            budget = self._upload if to_other_host(request) else None
            body = BodyWriter(request, response, stop - start, budget)
            place.stalled_s = body.stalled_s
            await _deliver(body, response, pull, source.read(start, stop))
        return response

    @asynccontextmanager
    async def _place(self, request: web.Request, *, sticky: bool) -> AsyncIterator[BodyPlace]:
        within_s = PLACE_WAIT_STICKY_S if sticky else PLACE_WAIT_S
        who, give_up = network_of_address(request.remote or ""), partial(_abort, request)
        async with AsyncExitStack() as stack:
            try:
                held = self._places.held(who, give_up, within_s=within_s)
                place = await stack.enter_async_context(held)
            except TimeoutError:
                # Never 429: containerd 1.6.20 answers it with six requests at once.
                text, reason = "too many transfers at once", ErrorReason.NO_SOURCE
                raise RegistryError(404, "BLOB_UNKNOWN", text, reason=reason) from None
            yield place


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@contextmanager
def _faults_logged(pull: Pull) -> Iterator[None]:
    """Keep a fault at the end of a body from becoming a second answer behind it."""
    try:
        yield
    except Exception:
        fields = {"request": pull.context.request_id}
        _logger.exception("blob.close_failed", extra={"fields": fields})


def _blob_response(pull: Pull, route: BlobRoute, status: int, length: int) -> web.StreamResponse:
    headers = {
        **pull.headers,
        **content_headers(route.digest),
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CONTENT_TYPE: "application/octet-stream",
    }
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = length
    return response


async def _deliver(
    body: BodyWriter,
    response: web.StreamResponse,
    pull: Pull,
    items: AsyncIterator[FileSpan | bytes],
) -> None:
    """Send `items`; a body that cannot be completed ends short, by FIN.

    The first item comes before the status line, so that a blob without a source is an error answer
    and not a broken body.
    """
    try:
        try:
            first = await anext(items)
        except (StopAsyncIteration, BlobFailed):
            text, reason = "no source has this blob now", ErrorReason.NO_SOURCE
            raise RegistryError(404, "BLOB_UNKNOWN", text, reason=reason) from None
        pull.status = response.status
        try:
            pull.outcome = await _send(body, first, items, pull.context.request_id)
        finally:
            pull.sent_bytes = body.sent_bytes
        if pull.outcome != "served":
            # Without keep-alive aiohttp closes the connection once what is buffered has gone out.
            response.force_close()
    finally:
        if isinstance(items, AsyncGenerator):
            with _faults_logged(pull):
                await items.aclose()


async def _send(
    body: BodyWriter,
    first: FileSpan | bytes,
    items: AsyncIterator[FileSpan | bytes],
    request_id: str,
) -> Outcome:
    """Send the body and tell how that ended; raise nothing, as the answer has begun."""
    try:
        await body.begin()
        await body.send(first)
        async for item in items:
            await body.send(item)
        body.end()
    except ConnectionError:
        return "client_gone"
    except ClientStalled:
        body.abort()
        return "client_stalled"
    except BlobFailed as error:
        logs.event(_logger, logging.WARNING, "body.cut", request=request_id, reason=str(error))
        return "cut"
    except Exception:
        _logger.exception("body.cut", extra={"fields": {"request": request_id}})
        return "cut"
    return "served"
