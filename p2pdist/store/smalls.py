"""Blobs of one chunk and manifests: one file each, with its media type and an xxh3 footer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import xxhash
from cachetools import LRUCache

from p2pdist.errors import PeerFault
from p2pdist.model.geometry import MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, digest_algorithm, digest_of, parse_digest
from p2pdist.process.files import read_bounded_file, write_whole
from p2pdist.store.files import blob_path
from p2pdist.store.ports import SmallBlob

MEDIA_TYPE_BYTES_MAX: Final = 255
CACHE_BYTES_MAX: Final = 32 << 20
_FOOT_BYTES: Final = 8


class SmallFiles:
    """File: length of the media type (1 byte), media type, body, footer."""

    def __init__(self, root: Path, now_s: Callable[[], float]) -> None:
        self._root = root
        self._now_s = now_s
        self._used_at_s: dict[Digest, float] = {}
        self._sizes: dict[Digest, int] = {}
        self._lock = threading.Lock()
        self._cache: LRUCache[Digest, SmallBlob] = LRUCache(
            CACHE_BYTES_MAX, getsizeof=lambda small: len(small.body) + 256
        )
        self.bytes_used = 0

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def digests(self) -> list[Digest]:
        return list(self._sizes)

    def listed(self) -> list[tuple[Digest, int, float]]:
        """All that lie here: bytes on disk, and when each was used last."""
        return [(d, size, self._used_at_s.get(d, 0.0)) for d, size in list(self._sizes.items())]

    def cached(self, digest: Digest) -> SmallBlob | None:
        with self._lock:
            found = self._cache.get(digest)
            if found is not None:
                self._used_at_s[digest] = self._now_s()
            return found

    def put(self, digest: Digest, body: bytes, media_type: str) -> None:
        """Blocking. Raise PeerFault for bytes that do not have the digest, OSError."""
        if len(body) > MANIFEST_SIZE_MAX_BYTES:
            raise PeerFault(f"small blob of {len(body)} bytes", reason="length")
        if digest_of(body, digest_algorithm(digest)) != digest:
            raise PeerFault("a small blob with wrong bytes", reason="hash")
        known = self.get(digest) if media_type else None
        if digest in self._sizes and (known is None or known.media_type):
            return
        media = media_type.encode("ascii", "replace")[:MEDIA_TYPE_BYTES_MAX]
        data = bytes([len(media)]) + media + body
        write_whole(
            self._path(digest), data + xxhash.xxh3_64_digest(data), durable=False, points="store"
        )
        self._remember(SmallBlob(digest, media.decode("ascii"), body), len(data))

    def get(self, digest: Digest) -> SmallBlob | None:
        """Blocking. A file that rotted is dropped; one that cannot be read now is not."""
        if digest not in self._sizes:
            return None
        try:
            read = self._read(digest)
        except FileNotFoundError:
            read = None
        except OSError:
            return None
        if read is None:
            self.remove(digest)
            return None
        self._remember(*read)
        return read[0]

    def from_disk(self, digest: Digest) -> bytes | None:
        """Blocking. The body as it lies there now, whatever memory holds."""
        if digest not in self._sizes:
            return None
        with contextlib.suppress(OSError):
            read = self._read(digest)
            return read[0].body if read is not None else None
        return None

    def missing(self) -> list[Digest]:
        """Blocking. Those whose files were taken away from below."""
        return [digest for digest in self.digests() if not self._path(digest).exists()]

    def _read(self, digest: Digest) -> tuple[SmallBlob, int] | None:
        """The blob and its bytes on the disk; None: damaged. Raises OSError."""
        limit = MANIFEST_SIZE_MAX_BYTES + MEDIA_TYPE_BYTES_MAX + 64
        raw = read_bounded_file(self._path(digest), limit) or b""
        data, foot = raw[:-_FOOT_BYTES], raw[-_FOOT_BYTES:]
        if not data or xxhash.xxh3_64_digest(data) != foot:
            return None
        media_stop = 1 + data[0]
        small = SmallBlob(digest, data[1:media_stop].decode("ascii"), data[media_stop:])
        return small, len(data)

    def remove(self, digest: Digest) -> None:
        with self._lock:
            self._cache.pop(digest, None)
            self._used_at_s.pop(digest, None)
            self.bytes_used -= self._sizes.pop(digest, 0)
        with contextlib.suppress(OSError):  # one that stays is checked again when it is read
            self._path(digest).unlink()

    def load(self) -> None:
        """Blocking. Find what lies there; bodies are checked when they are read."""
        for path in self._root.glob("*/*/*"):
            try:
                digest = parse_digest(f"{path.parent.parent.name}:{path.name}")
            except ValueError:
                path.unlink(missing_ok=True)
                continue
            status = path.lstat()
            self._sizes[digest], self._used_at_s[digest] = status.st_size, status.st_mtime
            self.bytes_used += self._sizes[digest]

    def _remember(self, small: SmallBlob, size: int) -> None:
        with self._lock:
            self.bytes_used += size - self._sizes.get(small.digest, 0)
            self._sizes[small.digest] = size
            self._used_at_s[small.digest] = self._now_s()
            with contextlib.suppress(ValueError):  # larger than the whole cache
                self._cache[small.digest] = small

    def _path(self, digest: Digest) -> Path:
        return blob_path(self._root, digest)
