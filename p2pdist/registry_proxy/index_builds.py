"""Has a process build the index of a layer while the layer arrives."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from p2pdist.errors import P2pdistError
from p2pdist.model.layer_index import INDEX_BYTES_MAX
from p2pdist.process.processes import yield_to_others
from p2pdist.store.ports import StoredBlob
from p2pdist.swarm.active import ActiveBlob

WORKER: Final = "p2pdist.streaming.build_worker"
UNFIT: Final = 65
TURN_S: Final = 1.0
"""How often a blob is looked at that stands still, or waits for its seal."""
REASON_BYTES_MAX: Final = 1000
END_S: Final = 60.0
"""All of it was read: what is left is to write 7 MB for each GB."""


class NotBuilt(P2pdistError):
    """No index came of it; `unfit`: nor will any of this layer."""

    def __init__(self, why: str, *, unfit: bool = False) -> None:
        super().__init__(why)
        self.unfit = unfit


async def build_index(active: ActiveBlob, in_motion: Callable[[], bool]) -> bytes:
    """Return the index of a layer that arrives or lies here. Raises NotBuilt, StoreError.

    `in_motion`: the node has not let go of `active`, of which nothing would come any more.
    """
    while active.blob is None or not active.prefix_chunks:
        _check(active, in_motion)
        await active.readers.wait_progress(TURN_S)
    blob = active.blob
    blob.hold()
    try:
        return await _built(active, blob, in_motion)
    finally:
        blob.release()


async def _built(active: ActiveBlob, blob: StoredBlob, in_motion: Callable[[], bool]) -> bytes:
    with contextlib.closing(blob.open_data()) as data:
        if (fileno := data.fileno) is None:
            raise NotBuilt("its process reads files, and this store has none")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", WORKER, str(fileno), active.digest,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(fileno,),
        )  # fmt: skip
    yield_to_others(process.pid)
    async with _ended(process):
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it says on stderr why it went
            told = -1
            while not blob.complete:
                _check(active, in_motion)
                if active.blob is not blob:
                    raise NotBuilt("it was taken up anew")
                if (stop := _read_up_to(active)) > told:
                    told = stop
                    process.stdin.write(b"%d\n" % stop)
                    await process.stdin.drain()
                if process.returncode is not None:
                    break
                await active.readers.wait_progress(TURN_S)
            process.stdin.write(b"%d\nend\n" % blob.geometry.size_bytes)
            await process.stdin.drain()
            process.stdin.close()
        return await _outcome(process)


def _read_up_to(active: ActiveBlob) -> int:
    """What lies here without a gap, in bytes."""
    return min(active.geometry.offset(active.prefix_chunks), active.geometry.size_bytes)


def _check(active: ActiveBlob, in_motion: Callable[[], bool]) -> None:
    if not in_motion():
        raise NotBuilt("it was let go before it was whole")
    if active.failure is not None or active.store_full:
        raise NotBuilt(active.failure or "the store does not keep it")


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """However the block ends, the process does."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _outcome(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(None) as deadline:
            index = bytearray()
            while data := await process.stdout.read(1 << 20):
                index += data
                if len(index) > INDEX_BYTES_MAX:
                    raise NotBuilt(f"an index of more than {INDEX_BYTES_MAX} bytes", unfit=True)
            deadline.reschedule(asyncio.get_running_loop().time() + END_S)
            reason = (await process.stderr.read(REASON_BYTES_MAX)).decode("utf-8", "replace")
            code = await process.wait()
    except TimeoutError:
        raise NotBuilt("its process does not end") from None
    if code == UNFIT:
        raise NotBuilt(reason, unfit=True)
    if code or not index:
        raise NotBuilt(f"its process ended with {code}: {reason.strip()[-200:]}")
    return bytes(index)
