"""Has an operator's certificate renewed by the trackers that a command asks anyway."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from p2pdist.control.renewing import put_next
from p2pdist.errors import P2pdistError
from p2pdist.model.control import Renewed
from p2pdist.model.identity import IdentityRole
from p2pdist.model.operator_renewal import PATH
from p2pdist.process.host_identity import HostIdentity, read_identity
from p2pdist.process.identity_files import can_write
from p2pdist.process.requests import new_request
from p2pdist.registry.reading.body import read_bounded
from p2pdist.registry.reading.net_errors import cause

TIMEOUT_S: Final = 5.0
"""For each tracker: whoever runs the command waits for something else."""
ANSWER_BYTES_MAX: Final = 64 << 10
"""A certificate and eight CAs."""


class NotRenewed(P2pdistError):
    """Why it goes on with the one that it has."""


async def renewed(
    own: HostIdentity, urls: Sequence[str], session: aiohttp.ClientSession, *, now_s: float
) -> HostIdentity:
    """Return the next certificate of `own`, which lies in its place then, signed by the first of
    the trackers' admin ports `urls` that does. Raises NotRenewed; nothing is changed then."""
    directory = own.directory
    if not can_write(directory):
        raise NotRenewed(f"{directory} cannot be written")
    try:
        with _alone(directory):
            request = await asyncio.to_thread(new_request)
            answer = await _first(own, urls, session, request.der)
            role = IdentityRole.OPERATOR
            put = partial(put_next, own, request, answer, role=role, now_s=now_s)
            await asyncio.to_thread(put)
            return await asyncio.to_thread(read_identity, directory, role)
    except (OSError, ValueError) as error:
        raise NotRenewed(str(error)) from None


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two commands at a time would put one's key beside the other's certificate. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotRenewed("another command is about to") from None
        yield
    finally:
        os.close(fd)


async def _first(
    own: HostIdentity, urls: Sequence[str], session: aiohttp.ClientSession, request: bytes
) -> Renewed:
    why = "no tracker to ask"
    for url in urls:
        try:
            answer = await _ask(own, url, session, request)
        except NotRenewed as error:
            why = str(error)
            continue
        if answer.certificate:
            return answer
        why = f"{url}: {answer.reason}"
    raise NotRenewed(why)


async def _ask(
    own: HostIdentity, url: str, session: aiohttp.ClientSession, request: bytes
) -> Renewed:
    asked = url.rstrip("/").replace("http://", "https://", 1) + PATH
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            session.post(asked, data=request, allow_redirects=False, ssl=own.trackers) as answer,
        ):
            data = await read_bounded(answer, ANSWER_BYTES_MAX, idle_s=TIMEOUT_S)
        return msgspec.json.decode(data, type=Renewed)
    except TimeoutError:
        raise NotRenewed(f"{url} does not answer") from None
    except (aiohttp.ClientError, OSError, P2pdistError) as error:
        raise NotRenewed(f"{url} does not answer: {cause(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotRenewed(f"{url} renews no certificates of operators") from None
