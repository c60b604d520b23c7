"""What a registry endpoint needs from its daemon: the mirror of a peer and the proxy alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol

from p2pdist.model.ids import Digest, HostId
from p2pdist.oci.callers import NOBODY, Caller
from p2pdist.oci.names import ImageName

client_account: ContextVar[str] = ContextVar("client account", default="")
"""Who asks, for shares among those who do: a host by its certificate, else the network that the
request came from; empty for work of our own. What a request starts, such as a look-up that others
wait for too, is on its account."""


_PROXY: Final = "proxy "


def account_of_host(host_id: str, *, is_proxy: bool = False) -> str:
    """The account of a host that has shown its certificate."""
    return f"{_PROXY if is_proxy else 'host '}{host_id}"


def is_of_proxy(account: str) -> bool:
    """Whether it is of a certified proxy, which asks for a whole datacenter."""
    return account.startswith(_PROXY)


client_accept: ContextVar[tuple[str, ...]] = ContextVar("client accept", default=())
"""The media types of manifests that the client named beyond ours: a strict registry gives nobody
what they did not ask for. Bounded by `oci.media_types`; goes on to proxies and upstream."""

speaks_for: ContextVar[tuple[str, Caller] | None] = ContextVar("speaks for", default=None)
"""Whose credentials a registry that decides by itself is to be shown, and which one it is. Set
around each question on behalf of a caller, and nowhere else; no other registry is shown them."""

Asker = tuple[tuple[str, ...], tuple[str, Caller] | None]


def asker() -> Asker:
    """For whom a question is: who asks the same for another one does not wait for its answer."""
    return client_accept.get(), speaks_for.get()


@contextmanager
def speaking_for(upstream: str, caller: Caller) -> Iterator[None]:
    """Ask `upstream` in this block as `caller`."""
    token = speaks_for.set((upstream, caller))
    try:
        yield
    finally:
        speaks_for.reset(token)


CACHE: Final = "cache"
"""The source of bytes that lay here before they were asked for."""
DEMAND_HEADER: Final = "P2pdist-Demand"
"""Beside a Range, with the value 1; or DEMAND_AGAIN."""
DEMAND_AGAIN: Final = "again"
"""What came for this range was wrong, says who asks: what lies here of it is to be hashed first."""
DOUBTED_BYTES_MAX: Final = 64 << 20
"""Of what is hashed for one request: more than any span of a layer is made of."""
FILL_HEADER: Final = "P2pdist-Fill"
"""With a HEAD of a blob, with the value 1: bring all of it here when nobody needs anything else."""
HELD_HEADER: Final = "P2pdist-Held"
"""In the answer to that, with the value 1: all of it lies here."""
TICKET_HEADER: Final = "P2pdist-Ticket"
"""With a HEAD of a blob, with the value 1, in TLS between hosts with certificates: say how other
hosts may be asked for it. In the answer, where only some may read it: its private digest, and the
ticket for it in Base64."""
USER_AGENT: Final = "p2pdist"
"""What daemons of ours call themselves over HTTP."""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """`length` bytes at `offset` of an open file, verified and allowed out."""

    fileno: int
    offset: int
    length: int


@dataclass(slots=True)
class PullContext:
    """One client request on its way through the daemon; gathers what its log line says."""

    request_id: str
    sticky: bool = False
    """The client named the upstream by path prefix and stays with the endpoint of its manifest:
    it is served up to upstream's own deadline instead of being sent on with a 404."""
    demand: bool = False
    """The client needs the range that it asks for and nothing else of the blob, at once: a peer
    fetches no more than that for it. Asked for by `DEMAND_HEADER`."""
    doubts: bool = False
    """The client had these bytes before, and they were wrong (`DEMAND_AGAIN`)."""
    fill: bool = False
    """All of the blob is to come here in time. Asked for by `FILL_HEADER`."""
    ticket_for: HostId | None = None
    """The host that wants to ask others for the blob (`TICKET_HEADER`), by its certificate."""
    ticket: tuple[Digest, bytes] | None = None
    """What it gets for that: the private digest, and the record of a `Ticket`."""
    held: bool = False
    """All of it lies here; told only where it is to be filled."""
    finds_layers: bool = False
    """The client looks for layers in image stores of its host, which is this one, before it asks
    for them (`oci.wanted_images`)."""
    has_snapshotter: bool = False
    """The client is an engine of this host that asks a snapshotter for each layer before it
    fetches it."""
    caller: Caller = NOBODY
    """Whose credentials came with it, for registries that decide by them."""
    bytes_by_source: dict[str, int] = field(default_factory=dict)
    """`CACHE`, `rack`, `dc`, `proxy`, `wan`, `upstream`: where the bytes of what was asked for came
    from while it was read."""
    slowest_cause: str = ""
    """What the longest wait of this request was for."""
    slowest_wait_s: float = 0.0

    def waited(self, cause: str, seconds: float) -> None:
        if seconds > self.slowest_wait_s:
            self.slowest_cause, self.slowest_wait_s = cause, seconds


@dataclass(frozen=True, slots=True)
class Manifest:
    digest: Digest
    media_type: str
    body: bytes
    statement: bytes | None = None
    """The signed tag record, where the manifest was asked for by tag and a proxy vouched."""
    stale: str | None = None
    """Why an old answer had to do; goes out as a `Warning` header."""
    source: str = field(default=CACHE, compare=False)
    """Where the bytes came from, one of those of `PullContext.bytes_by_source`."""


@dataclass(frozen=True, slots=True)
class TagPage:
    tags: list[str]
    following: str | None = None
    """The query that brings the next page, as the registry wrote it; None: this is the last one."""


class BlobSource(Protocol):
    """An open blob. `close` must be called once, also after an error."""

    digest: Digest
    size_bytes: int

    def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        """Yield the bytes `start` to `stop` (exclusive) in order, as they become deliverable.

        Raises RegistryError only before the first item (nothing was promised yet) and BlobFailed
        later (the body must end short). Every item was verified; each wait has a deadline.
        """
        ...

    def close(self) -> None: ...


class RegistryBackend(Protocol):
    """Answers for the `/v2/` pull surface; raises RegistryError for all that cannot be served."""

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        """`reference` is a valid tag or digest."""
        ...

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        """Answer a HEAD; triggers no transfer of the blob."""
        ...

    async def open_blob(
        self, name: ImageName, digest: Digest, context: PullContext
    ) -> BlobSource: ...

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        """`query` is the registry's own, or its client's."""
        ...

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest: ...

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        """The blob of `name` that is the index of its layer `digest`, as a proxy signed that it is;
        404 where there is none."""
        ...
