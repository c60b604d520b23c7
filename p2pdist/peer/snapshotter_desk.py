"""What a mirror answers to the snapshotter of its host, beside pulls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from p2pdist.errors import RegistryError
from p2pdist.model.control import Trace, digest_key
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci import layered_image, traces, wanted_images
from p2pdist.oci.layered_image import LayeredImage, encode_layered_image
from p2pdist.oci.routes import split_target
from p2pdist.oci.traces import decode_trace, encode_trace
from p2pdist.oci.wanted_images import encode_wanted_image
from p2pdist.peer.coming_images import ComingImages
from p2pdist.peer.wanted_images import WantedImages
from p2pdist.registry.serving.answers import json_answer
from p2pdist.registry.serving.other_hosts import to_other_host

TRACE_S: Final = 0.25
"""A start waits for the answer: without one it reads as it goes."""
NUMBER_DIGITS_MAX: Final = 16


class TracePort(Protocol):
    """The tracker, as far as it knows what starts read."""

    async def trace(self, layer: Digest, *, timeout_s: float) -> list[int]: ...

    def tell(self, message: Trace) -> None: ...


def snapshotter_desk(
    image_of_chain: Callable[[Digest], Awaitable[LayeredImage]],
    tracker: TracePort,
    wanted: WantedImages,
    coming: ComingImages,
) -> Mapping[str, Handler]:
    """Handlers by path."""
    return {
        layered_image.QUESTION: partial(_image, image_of_chain),
        traces.QUESTION: partial(_trace, tracker),
        wanted_images.WANTED: partial(_wanted, wanted),
        wanted_images.COMING: partial(_coming, coming),
    }


async def _image(
    image_of_chain: Callable[[Digest], Awaitable[LayeredImage]], request: web.Request
) -> web.StreamResponse:
    """Raises RegistryError. A chain ID is a hash of what the image is made of: who knows it learns
    where it came from, and what the manifest says."""
    _check_method(request, hdrs.METH_GET)
    image = await image_of_chain(_digest(request, "chain"))
    return json_answer(encode_layered_image(image), {})


async def _trace(tracker: TracePort, request: web.Request) -> web.StreamResponse:
    """Raises RegistryError."""
    _check_method(request, hdrs.METH_GET, hdrs.METH_POST)
    layer = _digest(request, "layer")
    if request.method == hdrs.METH_GET:
        units = await tracker.trace(layer, timeout_s=TRACE_S)
        return web.Response(body=encode_trace(units))
    try:
        tracker.tell(Trace(digest_key(layer), decode_trace(await request.read())))
    except ValueError as error:
        raise RegistryError(400, "UNSUPPORTED", str(error)) from None
    return web.Response(status=204)


async def _wanted(wanted: WantedImages, request: web.Request) -> web.StreamResponse:
    """Raises RegistryError. Pulls of this host wait for whoever asks here: nobody else may."""
    _check_method(request, hdrs.METH_GET, hdrs.METH_POST)
    if to_other_host(request):
        raise RegistryError(403, "DENIED", "this is for the host itself")
    if request.method == hdrs.METH_POST:
        wanted.settle(_number(request))
        return web.Response(status=204)
    image = await wanted.next()
    if image is None:
        return web.Response(status=204)
    return json_answer(encode_wanted_image(image), {})


async def _coming(coming: ComingImages, request: web.Request) -> web.StreamResponse:
    """Raises RegistryError. It has configs fetched: for nobody but this host."""
    _check_method(request, hdrs.METH_GET)
    if to_other_host(request):
        raise RegistryError(403, "DENIED", "this is for the host itself")
    _, _, query = split_target(request.raw_path)
    image = await coming.next(_number(request, "after") if "after" in query else None)
    if image is None:
        return web.Response(status=204)
    return json_answer(encode_wanted_image(image), {})


def _number(request: web.Request, key: str = "number") -> int:
    """Raises RegistryError."""
    _, _, query = split_target(request.raw_path)
    text = query.get(key, "")
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise RegistryError(400, "UNSUPPORTED", "this is no number of an image")
    return int(text)


def _check_method(request: web.Request, *methods: str) -> None:
    if request.method not in methods:
        raise RegistryError(405, "UNSUPPORTED", f"this is for {' and '.join(methods)} only")


def _digest(request: web.Request, key: str) -> Digest:
    _, _, query = split_target(request.raw_path)
    try:
        return parse_digest(query.get(key, ""))
    except ValueError as error:
        raise RegistryError(400, "DIGEST_INVALID", str(error)) from None
