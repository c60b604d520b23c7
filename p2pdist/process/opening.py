"""Opens files in a thread, for tasks that may be cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import BufferedRandom, BufferedReader, BufferedWriter
from pathlib import Path
from typing import IO, Literal, overload


@overload
def opened(
    path: Path | bytes, mode: Literal["rb"]
) -> AbstractAsyncContextManager[BufferedReader]: ...
@overload
def opened(
    path: Path | bytes, mode: Literal["xb"]
) -> AbstractAsyncContextManager[BufferedWriter]: ...
@overload
def opened(
    path: Path | bytes, mode: Literal["xb+"]
) -> AbstractAsyncContextManager[BufferedRandom]: ...
def opened(path: Path | bytes, mode: str) -> AbstractAsyncContextManager[IO[bytes]]:
    """The file, for as long as the block lasts. Raises OSError.

    With `await to_thread(open, …)` nobody closes what the thread opens after the cancellation.
    """
    return _opened(path, mode)


@asynccontextmanager
async def _opened(path: Path | bytes, mode: str) -> AsyncIterator[IO[bytes]]:
    opening = asyncio.get_running_loop().run_in_executor(None, _open, path, mode)
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise
    with file:
        yield file


def _open(path: Path | bytes, mode: str) -> IO[bytes]:
    return open(path, mode)


def _close(opening: asyncio.Future[IO[bytes]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
