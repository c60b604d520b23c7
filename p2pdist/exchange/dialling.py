"""Connects to a host by name or address: whichever of its addresses answers first."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from aiohappyeyeballs import start_connection

from p2pdist.model.members import Address

# RFC 8305, section 5, recommends 250 ms and allows 100: pulls wait for this (fault matrix 7).
STAGGER_S: Final = 0.15
"""After how long the next address is dialled beside one that does not answer."""


async def connected(address: Address) -> socket.socket:
    """Return a non-blocking socket to whoever listens at `address`; raise OSError.

    A name is resolved at every call, as it may have been moved. All its addresses are dialled,
    families in turn, each a moment after the one before or as soon as that one has failed.
    """
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return await start_connection(infos, happy_eyeballs_delay=STAGGER_S, interleave=1)
    except ValueError as error:  # a name that cannot be one: others may tell us any text
        raise OSError(f"{address.host!r:.80} cannot be resolved: {error}") from None
    except RuntimeError as error:  # uvloop, in place of an OSError
        raise OSError(str(error)) from error
