"""Network errors are told in words, and none of them quotes an URL."""

from __future__ import annotations

import errno
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from p2pdist.registry.reading.net_errors import cause

KEY = ConnectionKey("r.test", 443, True, True, None, None, None)


def refused() -> OSError:
    """As asyncio words it."""
    return OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 443)")


def unbelieved() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aiohttp.ClientConnectorError(KEY, refused()), "connection refused"),
        (refused(), "connection refused"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer"),
        (
            aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")),
            "its name does not resolve",
        ),
        (
            aiohttp.ClientConnectorDNSError(KEY, OSError("r.test has no address (allow_private)")),
            "r.test has no address (allow_private)",
        ),
        (
            aiohttp.ClientConnectorCertificateError(KEY, unbelieved()),
            "its certificate is not believed: self-signed certificate",
        ),
        (unbelieved(), "its certificate is not believed: self-signed certificate"),
        (aiohttp.ServerDisconnectedError(), "it hung up"),
        (aiohttp.InvalidURL("https://r.test/?X-Amz-Signature=secret"), "InvalidURL"),
    ],
)
def test_an_error_is_said_in_words(error: Exception, said: str) -> None:
    assert cause(error) == said
