"""Why a connection or a request came to nothing, in words for people."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final

import aiohttp

from p2pdist.exchange.tls_refusal import refusal_text

# What OpenSSL makes of an answer in clear: 3.0, 3.2 and later.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


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


def tls_fault(error: Exception) -> str:
    """Return why TLS with whoever has a certificate of ours came to nothing; empty: it is not
    that."""
    within = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    found = within if isinstance(within, ssl.SSLError) else within.__cause__
    if not isinstance(found, ssl.SSLError):
        return ""
    if getattr(found, "reason", None) in _NO_TLS:  # only OpenSSL gives one
        return "it speaks no TLS there"
    return refusal_text(found)
