"""What a store is to the rest: blobs that come chunk by chunk, read by whoever follows them.

A daemon's set-up chooses the store (`OpenStore`); everything else is typed by these protocols, and
what they promise is held by `tests/conformance/store`. Sizes and offsets are bytes. A store that is
closed is asked for nothing any more. Nothing here but `prove`, `drop_lost` and what is a coroutine
waits for a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from p2pdist.errors import StoreError
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest, MapId, TagKey
from p2pdist.model.statements import Keyring

Data = bytes | bytearray | memoryview

# Left to the rest of the host: a full disk hurts more than the store.
RESERVE_FREE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Eviction starts above `high_watermark` of `max_bytes` and stops below `low_watermark`."""

    max_bytes: int
    high_watermark: float = 0.90
    low_watermark: float = 0.80
    reserve_free_bytes: int = RESERVE_FREE_BYTES


@dataclass(frozen=True, slots=True)
class StoreUsage:
    bytes_used: int
    bytes_max: int
    blobs: int
    smalls: int
    evicted_bytes_total: int
    open_files: int
    """However many blobs there are (`open_files`)."""
    aside_bytes: int
    """Of blobs whose map does not hold here: kept until it does, or until room is needed."""


@dataclass(frozen=True, slots=True)
class SmallBlob:
    digest: Digest
    media_type: str
    """Empty: nobody has told it yet."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """At most `length` bytes from `offset` of what lies under `digest`: fewer at its end."""

    digest: Digest
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Losses:
    """What was thought to be here and is not."""

    blobs: list[Digest]
    smalls: list[Digest]
    statements: list[TagKey]


class Resorted(NamedTuple):
    """What came of other keys."""

    back: list[Digest]
    """What was aside, and counts again."""
    later: list[Digest]
    """What is in motion still, under a map that does not hold any more."""


class OpenData(Protocol):
    """The bytes of one blob, readable until `close`, whatever becomes of the blob meanwhile."""

    @property
    def fileno(self) -> int | None:
        """An open file with all of them, for `sendfile`; None: this store has none, `read` them."""

    async def read(self, offset: int, length: int) -> bytes:
        """As they lie there, verified or not; fewer at the end. Raises StoreError."""

    def close(self) -> None:
        """Safe to call twice."""


class StoredBlob(Protocol):
    """One blob of several chunks. `verified` is true of what lies there at any moment."""

    @property
    def digest(self) -> Digest: ...
    @property
    def chunk_map(self) -> ChunkMap:
        """The one that was created with, or `replace_map` took; its owner applies statements."""

    @property
    def geometry(self) -> Geometry:
        """Never another one: a blob of another size is another blob."""

    @property
    def verified(self) -> ChunkSet:
        """Chunks that lie here and had their hash when they came, or later. Not to be changed."""

    @property
    def complete(self) -> bool:
        """All chunks are here and the map is sealed."""

    @property
    def synced(self) -> bool:
        """All chunks outlive a power cut, as far as the store can keep anything over one."""

    def open_data(self) -> OpenData:
        """Does not block. Raises StoreError: BlobGone after the blob was removed."""

    def hold(self) -> None:
        """Keep the blob from eviction until `release`, as often as it was held."""

    def release(self) -> None: ...

    async def admit(self, chunk: int, data: Data, expected_hash: bytes) -> bool:
        """Check, keep and mark a chunk that somebody sent; False, and nothing is kept, when it has
        another length or hash. Raises StoreError."""

    async def admit_many(self, chunks: Sequence[tuple[int, Data, bytes]]) -> list[bool]:
        """The same for several at once, answers in their order. Raises StoreError; none counts
        then. `data` is not looked at after the return."""

    async def land(
        self, chunk: int, data: Data, observers: Sequence[Callable[[Data], None]]
    ) -> bytes:
        """Keep and mark a chunk from upstream; return its hash. `observers` see the bytes too,
        perhaps in another thread. Raises StoreError."""

    async def read(self, offset: int, length: int) -> bytes:
        """As they lie there, verified or not. Raises StoreError."""

    def unchecked(self, first: int, stop: int) -> bool:
        """Some chunk of `first` to `stop` was not hashed since this process started."""

    async def check(self, first: int, stop: int) -> list[int]:
        """Hash those chunks; drop and return what rotted since it was kept. Raises StoreError."""

    async def scrub(self, first: int = 0, stop: int | None = None) -> list[int]:
        """The same of all verified chunks among them, whenever they were hashed last."""

    async def reclaim(self) -> None:
        """Mark the chunks of an earlier map that have the hash which the map gives them by now.
        Raises StoreError."""

    async def add_records(self, *records: bytes) -> None:
        """Keep statements that `chunk_map` took in, in their order. Raises StoreError."""

    async def replace_map(self, chunk_map: ChunkMap) -> None:
        """Work under another map of the same digest and geometry; chunks with the same hash stay,
        of the others none counts until `reclaim` or a sender brings it. Raises StoreError."""

    async def sync(self) -> None:
        """Flush, so that another boot need not hash again. Raises StoreError."""


class BlobStore(Protocol):
    """All blobs of one daemon; bounded, the least recently used go."""

    on_evict: Callable[[Digest], None] | None
    """Called before the bytes of a blob go, so that its offer goes first."""
    on_pressure: Callable[[], None] | None
    """Called when room is needed: let go of the blobs that are held for convenience."""

    @property
    def has_files(self) -> bool:
        """`OpenData.fileno` is one, always; else never."""

    async def close(self) -> None: ...

    # Blobs of several chunks.

    def get(self, digest: Digest) -> StoredBlob | None: ...
    def blobs(self) -> Sequence[StoredBlob]: ...

    async def create(self, chunk_map: ChunkMap) -> StoredBlob:
        """Return the blob of a digest, made with room for all its bytes if it is new.

        What lay here under a map of another size goes: the caller decides which of them is right.
        Raises PeerFault for a revoked map, StoreError (`full`) when there is no room, even after
        eviction.
        """

    async def remove(self, digest: Digest) -> None:
        """Drop a blob or a small one; who has its data open keeps that. Raises StoreError."""

    def aside(self, digest: Digest) -> int | None:
        """Bytes that lie here of a blob whose map does not hold; None: there is none."""

    async def keys_changed(self, moves: Callable[[Digest], bool]) -> Resorted:
        """The keyring that this was opened with changed: do what the next start would do.

        A blob whose map does not hold any more is put aside, after `on_evict` heard of it. Not yet
        if `moves` says that it is in motion: call this again. Who reads the data of one that was
        put aside reads on. Raises StoreError.
        """

    # Room.

    def reserve(self, sizes: Mapping[Digest, int]) -> AbstractAsyncContextManager[None]:
        """Room for blobs that are to come, as long as the block lasts: nobody else gets it, and
        each blob takes its own when it is created. Those that are here cost nothing, and those that
        several reserve room for cost it once, until the last of them ends.

        Evicts what has to go; raises StoreError (`full`) where that would not be enough, and
        evicts nothing then.
        """

    async def room(self) -> int:
        """Bytes that blobs to come may take, when all that may be evicted is. Raises
        StoreError."""

    def usage(self) -> StoreUsage: ...

    @property
    def refusal(self) -> StoreError | None:
        """Why what was last to be kept was not; None since something was."""

    # Pins and proofs.

    async def pin(self, job: str, digests: Sequence[Digest], until_unix_s: float) -> None:
        """Keep blobs, here or to come, from eviction until then; a job's later pins replace its
        earlier ones. Raises StoreError."""

    async def unpin(self, job: str) -> None:
        """Raises StoreError."""

    def pinned_bytes(self) -> int:
        """Of the blobs that lie here."""

    async def prove(self, parts: Sequence[Part], key: bytes) -> bytes | None:
        """Hash parts of what really lies here (BLAKE3, keyed with 32 bytes), one behind the other;
        None: some of it is gone."""

    async def drop_lost(self) -> Losses:
        """Forget what was taken away from below, and return it; `on_evict` hears of the blobs.
        Raises StoreError."""

    # Small blobs, statements, revocations.

    async def put_small(self, digest: Digest, body: bytes, media_type: str = "") -> None:
        """Keep a whole small blob or manifest; raise PeerFault when it has another digest and
        StoreError when it cannot be kept. A media type that was told stays."""

    async def get_small(self, digest: Digest) -> SmallBlob | None: ...
    def has_small(self, digest: Digest) -> bool: ...
    def smalls(self) -> Iterator[Digest]:
        """All of them; what comes or goes meanwhile may be among them or not."""

    async def put_statement(self, key: TagKey, record: bytes, *, index: bool = False) -> None:
        """`index`: it says which index a layer has, else what a tag stands for. Raises
        StoreError."""

    async def get_statement(self, key: TagKey) -> bytes | None: ...
    def statement_keys(self) -> list[TagKey]: ...

    async def put_revocation(self, digest: Digest, map_id: MapId, record: bytes) -> None:
        """Remember that a map is void. In force at once; raises StoreError where a restart would
        forget it."""

    def revoked(self, map_id: MapId) -> bool: ...
    def revocations(self) -> list[bytes]: ...


class OpenStore(Protocol):
    """How a daemon gets its store."""

    async def __call__(
        self, root: Path, *, limits: StoreLimits, keyring: Keyring, boot_id: str
    ) -> BlobStore:
        """Open or make the store at `root` and recover what lies there. Raises ConfigError,
        StoreError."""
