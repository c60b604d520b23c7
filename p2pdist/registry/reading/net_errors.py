"""Why a connection or a request came to nothing, in words for people."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp

from p2pdist.exchange.tls_refusal import refusal_text


def cause(error: Exception) -> str:
    """Say what the system, TLS or the resolver said, which aiohttp wraps.

    Never the text of aiohttp's own errors: it may quote a presigned URL.
    """
    within = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(within, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {within.verify_message}"
    if isinstance(within, ssl.SSLError):
        return f"no TLS with it: {(within.reason or 'unknown').lower().replace('_', ' ')}"
    if isinstance(within.__cause__, ssl.SSLError):  # an alert: TLS was up when it came
        return refusal_text(within.__cause__)
    if isinstance(within, socket.gaierror):
        return "its name does not resolve"
    if isinstance(within, OSError) and within.errno is not None and within.errno > 0:
        return os.strerror(within.errno).lower()  # asyncio's own text repeats the address
    if isinstance(error, aiohttp.ClientConnectorDNSError) and str(within):
        return str(within)  # a resolver's, which knows nothing of URLs
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it hung up"
    return type(error).__name__
