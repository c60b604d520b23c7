"""Signed statements: all that a proxy vouches for, in one envelope that anybody may relay.

A record is `kind (1) | key id (8) | Ed25519 signature (64) | payload`. The signature covers a
domain prefix, the kind and the payload, so that no record can pass for one of another kind.
Key id: the first 8 bytes of the SHA-256 of the raw public key.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2pdist.errors import PeerFault, UnknownKey
from p2pdist.model.ids import (
    MAP_ID_BYTES,
    Digest,
    HostId,
    MapId,
    TagKey,
    digest_from_wire,
    digest_to_wire,
)
from p2pdist.model.private_digests import SCOPE_BYTES, Scope

CHUNK_HASH_BYTES: Final = 32
# 64 hashes are 2 KiB: one signature (100 µs to check) per 16 MiB of 256 KiB chunks.
BATCH_HASHES_MAX: Final = 64
RECORD_BYTES_MAX: Final = 4096
KEY_ID_BYTES: Final = 8
RETIRED_MAX: Final = 16
"""Keys that a host remembers to have believed: of eight rotations of two proxies each."""

_DOMAIN: Final = b"p2pdist statement 1\0"
_ENVELOPE: Final = struct.Struct(f">B{KEY_ID_BYTES}s64s")
_HEAD: Final = struct.Struct(f">{MAP_ID_BYTES}sQIQ")
_BATCH: Final = struct.Struct(f">{MAP_ID_BYTES}sIH")
_SEAL: Final = struct.Struct(f">{MAP_ID_BYTES}sI32s")
_REVOKE: Final = struct.Struct(f">{MAP_ID_BYTES}sQ")
_TAG: Final = struct.Struct(">32sQQQBB")
_TICKET: Final = struct.Struct(f">{SCOPE_BYTES}s16sQ")
_DERIVED: Final = b"p2pdist derived key 1\0"


class Kind(enum.IntEnum):
    HEAD = 1
    HASHES = 2
    SEAL = 3
    REVOKE = 4
    TAG = 5
    TICKET = 6


@dataclass(frozen=True, slots=True)
class MapHead:
    """Opens a chunk map: which blob it is of, and how the blob is cut."""

    digest: Digest
    map_id: MapId
    size_bytes: int
    chunk_size_bytes: int
    issued_at_s: int
    """Unix seconds on the signer's clock."""


@dataclass(frozen=True, slots=True)
class HashBatch:
    """BLAKE3 of the chunks `first` .. `first + count - 1` of a map."""

    map_id: MapId
    first: int
    hashes: bytes
    """`count` times 32 bytes."""

    @property
    def count(self) -> int:
        return len(self.hashes) // CHUNK_HASH_BYTES


@dataclass(frozen=True, slots=True)
class Seal:
    """The whole blob had its digest; `root` is the BLAKE3 of all chunk hashes in order."""

    digest: Digest
    map_id: MapId
    chunk_count: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Revocation:
    """The map was wrong: everybody drops what they hold under it."""

    digest: Digest
    map_id: MapId
    issued_at_s: int


@dataclass(frozen=True, slots=True)
class TagStatement:
    """A tag stood for `digest` when the proxy looked; worth something until `expires_at_s`."""

    key: TagKey
    digest: Digest
    media_type: str
    size_bytes: int
    issued_at_s: int
    expires_at_s: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """A host may have blobs of one repository from others: a caller of that host was let by the
    registry. It is worth something on a link that proves the host, and until `expires_at_s`."""

    scope: Scope
    host_id: HostId
    expires_at_s: int
    """Unix seconds."""


Statement = MapHead | HashBatch | Seal | Revocation | TagStatement | Ticket


class RetiredKey(UnknownKey):
    """A statement by a key that was believed until a while ago, whose signature holds: who passes
    it on has not heard yet, and is no liar."""

    def __init__(self, signer: str, statement: Statement) -> None:
        super().__init__(signer)
        self.statement = statement


class Signer:
    """Signs statements with one proxy key at a time."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key_bytes = key.public_key().public_bytes_raw()
        self._key_id = key_id(self.public_key_bytes)

    def turn_to(self, other: Signer) -> None:
        """Sign with the key of `other` from now on. On the event loop, like all that signs."""
        self._key, self._key_id = other._key, other._key_id
        self.public_key_bytes = other.public_key_bytes

    @classmethod
    def generate(cls) -> Signer:
        return cls(Ed25519PrivateKey.generate())

    def derived(self, purpose: str) -> bytes:
        """Return 32 bytes that whoever has this key has too, and nobody else; others for each
        purpose, which tell nothing of the key."""
        said, key = _DERIVED + purpose.encode(), self._key.private_bytes_raw()
        return hashlib.blake2b(said, key=key, digest_size=32).digest()

    def made(self, record: bytes) -> bool:
        """Whether a record whose signature holds is ours."""
        return signer_of(record) == self._key_id

    def sign(self, statement: Statement) -> bytes:
        """Return the record of `statement`: at most `RECORD_BYTES_MAX` bytes."""
        kind, payload = _encode(statement)
        signature = self._key.sign(_signed_bytes(kind, payload))
        record = _ENVELOPE.pack(kind, self._key_id, signature) + payload
        assert len(record) <= RECORD_BYTES_MAX
        return record


class Keyring:
    """The proxies' public keys that this host was configured with; nothing else adds to it."""

    def __init__(self, public_keys: Iterable[bytes]) -> None:
        """Each key is 32 raw bytes; raise ValueError for another length."""
        self._keys = _by_id(public_keys)
        self._retired: dict[bytes, Ed25519PublicKey] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, public_keys: Iterable[bytes]) -> None:
        """Believe these from now on, and no others. What the others signed is told apart from what
        a stranger did (`RetiredKey`), of the last `RETIRED_MAX` of them."""
        fresh = _by_id(public_keys)
        retired = {**self._retired, **self._keys}
        retired = {signer: key for signer, key in retired.items() if signer not in fresh}
        self._retired = dict(list(retired.items())[-RETIRED_MAX:])
        self._keys = fresh

    def knows(self, signer: bytes) -> bool:
        """The key with this id (`key_id`) is believed."""
        return signer in self._keys

    def open(self, record: bytes) -> Statement:
        """Check the signature of `record` and decode it; raise PeerFault for anything wrong."""
        if not _ENVELOPE.size < len(record) <= RECORD_BYTES_MAX:
            raise PeerFault(f"statement of {len(record)} bytes", reason="map")
        kind, signer, signature = _ENVELOPE.unpack_from(record)
        believed = self._keys.get(signer)
        key = believed or self._retired.get(signer)
        if key is None:
            raise UnknownKey(signer.hex())
        payload = record[_ENVELOPE.size :]
        try:
            key.verify(signature, _signed_bytes(kind, payload))
            statement = _decode(Kind(kind), payload)
        except InvalidSignature:
            raise PeerFault("statement with a bad signature", reason="map") from None
        except (ValueError, struct.error, UnicodeDecodeError) as error:
            raise PeerFault(f"malformed statement: {error}", reason="map") from None
        if believed is None:
            raise RetiredKey(signer.hex(), statement)
        return statement


def _by_id(public_keys: Iterable[bytes]) -> dict[bytes, Ed25519PublicKey]:
    return {key_id(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in public_keys}


def signer_of(record: bytes) -> bytes:
    """The key id of whoever signed a record whose signature holds."""
    return record[1 : 1 + KEY_ID_BYTES]


def key_id(public_key: bytes) -> bytes:
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def _signed_bytes(kind: int, payload: bytes) -> bytes:
    return _DOMAIN + bytes([kind]) + payload


def _encode(statement: Statement) -> tuple[Kind, bytes]:
    match statement:
        case MapHead(digest, map_id, size, chunk_size, issued):
            head = _HEAD.pack(map_id, size, chunk_size, issued)
            return Kind.HEAD, head + digest_to_wire(digest)
        case HashBatch(map_id, first, hashes):
            assert 0 < statement.count <= BATCH_HASHES_MAX
            assert len(hashes) % CHUNK_HASH_BYTES == 0
            return Kind.HASHES, _BATCH.pack(map_id, first, statement.count) + hashes
        case Seal(digest, map_id, chunk_count, root):
            return Kind.SEAL, _SEAL.pack(map_id, chunk_count, root) + digest_to_wire(digest)
        case Revocation(digest, map_id, issued):
            return Kind.REVOKE, _REVOKE.pack(map_id, issued) + digest_to_wire(digest)
        case TagStatement(key, digest, media_type, size, issued, expires):
            name, media = digest_to_wire(digest), media_type.encode("ascii")
            fixed = _TAG.pack(key, size, issued, expires, len(name), len(media))
            return Kind.TAG, fixed + name + media
        case Ticket(scope, host_id, expires):
            return Kind.TICKET, _TICKET.pack(scope, bytes.fromhex(host_id), expires)
        case _:
            assert_never(statement)


def _decode(kind: Kind, payload: bytes) -> Statement:
    match kind:
        case Kind.HEAD:
            map_id, size, chunk_size, issued = _HEAD.unpack_from(payload)
            digest = digest_from_wire(payload[_HEAD.size :])
            return MapHead(digest, MapId(map_id), size, chunk_size, issued)
        case Kind.HASHES:
            return _decode_batch(payload)
        case Kind.SEAL:
            map_id, count, root = _SEAL.unpack_from(payload)
            return Seal(digest_from_wire(payload[_SEAL.size :]), MapId(map_id), count, root)
        case Kind.REVOKE:
            map_id, issued = _REVOKE.unpack_from(payload)
            return Revocation(digest_from_wire(payload[_REVOKE.size :]), MapId(map_id), issued)
        case Kind.TAG:
            return _decode_tag(payload)
        case Kind.TICKET:
            scope, host, expires = _TICKET.unpack(payload)
            return Ticket(Scope(scope), HostId(host.hex()), expires)
        case _:
            assert_never(kind)


def _decode_batch(payload: bytes) -> HashBatch:
    map_id, first, count = _BATCH.unpack_from(payload)
    hashes = payload[_BATCH.size :]
    if not 0 < count <= BATCH_HASHES_MAX or len(hashes) != count * CHUNK_HASH_BYTES:
        raise ValueError("hash batch of a wrong length")
    return HashBatch(MapId(map_id), first, hashes)


def _decode_tag(payload: bytes) -> TagStatement:
    key, size, issued, expires, name_length, media_length = _TAG.unpack_from(payload)
    rest = payload[_TAG.size :]
    if len(rest) != name_length + media_length:
        raise ValueError("tag statement of a wrong length")
    media_type = rest[name_length:].decode("ascii")
    if not media_type.isprintable():
        raise ValueError("tag statement with an unprintable media type")
    digest = digest_from_wire(rest[:name_length])
    return TagStatement(TagKey(key), digest, media_type, size, issued, expires)
