"""Who may ask at `/v2/` of a proxy: hosts with a certificate, once certificates are required, and
those whose networks the operator named."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from p2pdist.errors import ErrorReason, PeerFault
from p2pdist.exchange.accepting import network_of_address
from p2pdist.model.identity import IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.private_places import IpNetwork
from p2pdist.oci import refusals
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.tls import CERTIFICATE
from p2pdist.registry.serving.answers import error_answer
from p2pdist.registry.serving.refused import RefusedRequests

_HEADERS: Final = {hdrs.SERVER: "p2pdist", "X-Content-Type-Options": "nosniff"}


def members_only(
    own: IdentityHolder | None,
    open_to: Collection[IpNetwork],
    refused: RefusedRequests,
    *,
    beside: Collection[str],
) -> Middleware:
    """Refuse whoever else asks, where `own`, the proxy's identity, is required of all. `beside`:
    paths with a proof of their own."""

    @web.middleware
    async def look(request: web.Request, handler: Handler) -> web.StreamResponse:
        own_proof = request.raw_path.partition("?")[0] in beside
        if own is None or not own.required or own_proof:
            return await handler(request)
        if _certified(own, request) or _named(request, open_to):
            return await handler(request)
        text = "this proxy answers hosts with a certificate only"
        error = refusals.refusal(ErrorReason.MEMBERS_ONLY, "", text)
        refused.stranger(network_of_address(request.remote or ""), error)
        return error_answer(error, _HEADERS)

    return look


def _certified(own: IdentityHolder, request: web.Request) -> bool:
    """The connection's other end has shown a certificate of ours, which TLS has looked at: asked at
    each request, as a host may be revoked while it is connected."""
    der: bytes | None = request.get_extra_info(CERTIFICATE)
    try:
        return der is not None and bool(own.current.shown(der))
    except PeerFault:
        return False


def exchanging_host(own: IdentityHolder | None, der: bytes) -> HostId | None:
    """The host that showed a certificate (DER), which TLS has looked at, if it is one that
    exchanges blobs with others."""
    try:
        shown = None if own is None else own.current.shown(der)
    except PeerFault:
        return None
    exchanges = shown is not None and shown.role in (IdentityRole.PEER, IdentityRole.PROXY)
    return shown.host_id if shown is not None and exchanges else None


def _named(request: web.Request, open_to: Collection[IpNetwork]) -> bool:
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in network for network in open_to)
