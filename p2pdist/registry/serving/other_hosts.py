"""Whether what is sent leaves this host."""

from __future__ import annotations

import ipaddress
from typing import Any

from aiohttp import web

from p2pdist.exchange.accepting import network_of_address


def to_other_host(request: web.Request) -> bool:
    """False for a client on loopback, or at the address that it reached us by."""
    transport = request.transport
    if transport is None:
        return True
    client, own = (transport.get_extra_info(which) for which in ("peername", "sockname"))
    return is_other_host(client, own)


def is_other_host(client: Any, own: Any) -> bool:
    """`client` and `own`: the two ends of a connection, as the socket module has them."""
    if not (isinstance(client, tuple) and isinstance(own, tuple) and client and own):
        return True
    there, here = str(client[0]), str(own[0])
    try:
        loopback = ipaddress.ip_address(network_of_address(there)).is_loopback
    except ValueError:
        loopback = False
    return not loopback and there != here
