"""Which names a port on loopback may be called by.

A web page that has its own name resolve to 127.0.0.1 could read what a workstation's mirror serves,
private images with it: browsers send the page's name in `Host`, and that is how it shows (DNS
rebinding). A name without a dot, or an address, is nobody's to point elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from p2pdist.oci.errors import error_body

_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


def called_rightly(host: str | None, names: Collection[str]) -> bool:
    """Whether a request with this `Host` header (None: none) means a port on loopback.

    `names` are the further ones that it goes by, in small letters.
    """
    if host is None:  # HTTP/1.0; no browser
        return True
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    if match["v6"] is not None:
        return _is_address(match["v6"])
    name = match["name"].lower().removesuffix(".")
    return "." not in name or name.endswith(".localhost") or _is_address(name) or name in names


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_check(names: Collection[str]) -> Middleware:
    """Return a middleware that answers 421 to who came by loopback under another name."""
    known = {name.lower() for name in (*names, socket.gethostname())}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _by_loopback(request) and not called_rightly(request.headers.get(hdrs.HOST), known):
            text = "this port does not go by that name: add it to host.http_names"
            return web.Response(
                status=421,
                body=error_body("DENIED", text),
                headers={hdrs.SERVER: "p2pdist", hdrs.CONTENT_TYPE: "application/json"},
            )
        return await handler(request)

    return check


def _by_loopback(request: web.Request) -> bool:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(name, tuple):
        return False
    try:
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
