"""Answers what neighbours ask of this node: runs of chunks, small blobs, tag statements."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from p2pdist.errors import PeerFault, StoreError
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest, RequestId, TagKey
from p2pdist.model.members import Place
from p2pdist.model.private_digests import is_private
from p2pdist.model.statements import Keyring, TagStatement
from p2pdist.process import logs
from p2pdist.store.ports import BlobStore, OpenData
from p2pdist.swarm.counters import NodeCounters, receiver_of
from p2pdist.swarm.smalls import SmallAnswer

log = logging.getLogger(__name__)


def everything(digest: Digest) -> bool:
    """What a peer holds came from proxies and peers, for everybody."""
    return True


class Authority(Protocol):
    """Finds what the swarm lacks; only a proxy has one."""

    def wanted(self, digest: Digest, *, bulk: bool) -> None:
        """A neighbour asked for a blob that is not whole here: fetch it, if it may be served.

        `bulk`: it does not wait for it.
        """
        ...

    def brings(self, digest: Digest) -> bool:
        """It is on its way from outside, or what lies here of it is being signed."""
        ...

    async def small(self, digest: Digest) -> SmallAnswer | None:
        """Return a blob of one chunk from upstream, or None if it may not or cannot be had."""
        ...


class Runs(Protocol):
    """Hears of the runs of one blob that go out."""

    def refers(self, link: Link, bits: int) -> bool:
        """It is not to have them from here, now."""
        ...

    def asked(self, link: Link, bits: int) -> None: ...

    def sent(self, link: Link, bits: int, unsent: int) -> None: ...


class _Begun(NamedTuple):
    """A run that goes out."""

    data: OpenData
    geometry: Geometry
    done: Callable[[int], None]
    """To be called once, with the bytes that went out."""


class Server:
    """Serves what is verified and vouched for and may be served, and nothing else."""

    def __init__(
        self,
        store: BlobStore,
        keyring: Keyring,
        counters: NodeCounters,
        place: Place,
        servable: Callable[[Digest], bool],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._servable = servable
        self._counters = counters
        self._place = place

    def takes_time(self, request: fr.Request) -> bool:
        """The chunks lie in no file, or were not hashed since this process started."""
        blob, stop = self._store.get(request.digest), request.first + request.count
        if blob is None or stop > blob.geometry.chunk_count:
            return False
        return not self._store.has_files or blob.unchecked(request.first, stop)

    async def check(self, request: fr.Request) -> list[int]:
        """Hash them; return those that had rotted, which are gone from here now. Raises
        StoreError."""
        blob = self._store.get(request.digest)
        if blob is None:
            return []
        blob.hold()
        try:
            return await blob.check(request.first, request.first + request.count)
        finally:
            blob.release()

    def serve_run(self, link: Link, request: fr.Request, runs: Runs | None) -> None:
        """Send a run out of a file, or refuse it; `runs` hears when it begins and ends."""
        begun = self._begin(link, request, runs)
        if begun is None:
            return
        data, geometry, done = begun
        assert data.fileno is not None
        indexes = range(request.first, request.first + request.count)
        spans = [(i, geometry.offset(i), geometry.length(i)) for i in indexes]
        link.send_run(request.request_id, data.fileno, spans, done, bulk=request.bulk)

    async def serve_read(self, link: Link, request: fr.Request, runs: Runs | None) -> None:
        """Send a run out of wherever it lies, a chunk in memory at a time, or refuse it; return
        when it has gone out. `runs` hears when it begins and ends."""
        if self._store.has_files:
            self.serve_run(link, request, runs)
            return
        begun = self._begin(link, request, runs)
        if begun is None:
            return
        data, geometry, done = begun
        sent_bytes = 0
        try:
            for chunk in range(request.first, request.first + request.count):
                body = await data.read(geometry.offset(chunk), geometry.length(chunk))
                nbytes = await _send_chunk(link, request, chunk, body)
                sent_bytes += nbytes
                if nbytes < len(body):  # nobody wants the rest
                    return
        except StoreError as error:
            self.refuse(link, request, error)
        finally:
            done(sent_bytes)

    def _begin(self, link: Link, request: fr.Request, runs: Runs | None) -> _Begun | None:
        """The data of a run that may go out; None: it was refused."""
        blob = self._store.get(request.digest)
        stop = request.first + request.count
        if (
            blob is None
            or blob.chunk_map.map_id != request.map_id
            or self._store.revoked(request.map_id)
            or not self._servable(request.digest)
            or stop > blob.geometry.chunk_count
            or blob.verified.first_missing(request.first) < stop
        ):
            link.send(fr.Refuse(request.request_id, fr.RefuseReason.UNKNOWN))
            return None
        asked = ((1 << request.count) - 1) << request.first
        if runs is not None and runs.refers(link, asked):
            link.send(fr.Refuse(request.request_id, fr.RefuseReason.BUSY))
            return None
        try:
            data = blob.open_data()
        except StoreError as error:
            self.refuse(link, request, error)
            return None
        held, geometry = blob, blob.geometry
        held.hold()
        receiver = receiver_of(link.session.member, self._place)

        if runs is not None:
            runs.asked(link, asked)

        def done(nbytes: int) -> None:
            self._counters.sent[receiver] += nbytes
            data.close()
            held.release()
            if runs is not None:
                sent = asked & whole_chunks(request, geometry, nbytes)
                runs.sent(link, sent, asked & ~sent)

        return _Begun(data, geometry, done)

    def refuse(self, link: Link, request: fr.Request, error: StoreError) -> None:
        """The disk does not give what we hold."""
        logs.event(log, logging.ERROR, "store.failed", digest=request.digest, error=str(error))
        link.send(fr.Refuse(request.request_id, fr.RefuseReason.UNKNOWN))

    async def serve_small(
        self, link: Link, request_id: RequestId, digest: Digest, authority: Authority | None
    ) -> None:
        """Answer with a small blob, or refuse; return when the answer has gone out."""
        answer = await self._small(digest, authority)
        if link.closed:
            return
        if answer is None:
            link.send(fr.Refuse(request_id, fr.RefuseReason.UNKNOWN))
        else:
            sent = asyncio.Event()
            link.send_small(request_id, answer.media_type, answer.body, sent.set)
            receiver = receiver_of(link.session.member, self._place)
            self._counters.sent[receiver] += len(answer.body)
            await sent.wait()

    async def _small(self, digest: Digest, authority: Authority | None) -> SmallAnswer | None:
        if not self._servable(digest) or is_private(digest):  # nothing small goes by such a name
            return None
        if (stored := await self._store.get_small(digest)) is not None:
            return SmallAnswer(stored.media_type, stored.body)
        if authority is None or self._store.get(digest) is not None:
            return None  # what has a map nobody gets as a whole
        return await authority.small(digest)

    async def serve_statement(self, link: Link, request_id: RequestId, key: TagKey) -> None:
        record = await self._store.get_statement(key)
        if record is not None and not self._may_tell(record):
            record = None
        if link.closed:
            return
        if record is None:
            link.send(fr.Refuse(request_id, fr.RefuseReason.UNKNOWN))
        else:
            link.send(fr.StatementIs(request_id, record))

    def _may_tell(self, record: bytes) -> bool:
        """Names do not travel here: a tag may be told when what it stands for may be served."""
        try:
            statement = self._keyring.open(record)
        except PeerFault:
            return False  # of a key that is believed no more
        return isinstance(statement, TagStatement) and self._servable(statement.digest)


async def _send_chunk(link: Link, request: fr.Request, chunk: int, body: bytes) -> int:
    """Return the bytes that went out, when they have; fewer than all: nobody wants the rest."""
    over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(nbytes: int) -> None:
        if not over.done():  # this node ends, else
            over.set_result(nbytes)

    link.send_run(request.request_id, body, [(chunk, 0, len(body))], done, bulk=request.bulk)
    return await over


def whole_chunks(request: fr.Request, geometry: Geometry, nbytes: int) -> int:
    """The chunks of a run of which all bytes are among the first `nbytes`."""
    stop = request.first
    while stop < request.first + request.count and nbytes >= geometry.length(stop):
        nbytes -= geometry.length(stop)
        stop += 1
    return (1 << stop) - (1 << request.first)
