"""Identities that cross module and wire borders, and their only parsers."""

from __future__ import annotations

import hashlib
import re
from typing import Final, NewType

Digest = NewType("Digest", str)
"""`algorithm:lower-case-hex`, always validated by `parse_digest` or, where hosts exchange a blob,
`parse_exchanged`."""

HostId = NewType("HostId", str)
"""32 lower-case hex characters, made once per host and kept in its state directory."""

ChunkIndex = NewType("ChunkIndex", int)
MapId = NewType("MapId", bytes)
"""16 bytes: the generation of a chunk map."""

RequestId = NewType("RequestId", int)
TagKey = NewType("TagKey", bytes)
"""32 bytes: SHA-256 over upstream, repository and tag, so that no name crosses the exchange."""

MAP_ID_BYTES: Final = 16

# OCI image specification, "Digests": sha256 is 64, sha512 is 128 lower-case hex characters.
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_DIGEST: Final = re.compile(r"(sha256|sha512):([0-9a-f]{64}(?:[0-9a-f]{64})?)")
_HOST_ID: Final = re.compile(r"[0-9a-f]{32}")
PRIVATE: Final = "private"
"""In the place of an algorithm: no hash of content, see `private_digests`."""
_PRIVATE: Final = re.compile(rf"{PRIVATE}:[0-9a-f]{{64}}")
_WIRE_BYTES: Final = {"sha256": 32, "sha512": 64, PRIVATE: 32}
_ALGORITHM_CODES: Final = {"sha256": 1, "sha512": 2, PRIVATE: 3}
_ALGORITHM_NAMES: Final = {code: name for name, code in _ALGORITHM_CODES.items()}


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest; raise ValueError for any other form."""
    match = _DIGEST.fullmatch(text)
    if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
        raise ValueError(f"not a digest: {text[:80]!r}")
    return Digest(text)


def parse_exchanged(text: str) -> Digest:
    """Return `text` as what hosts know a blob by among themselves: its digest, or a private one.
    Raise ValueError for any other form. Runtimes and registries speak of digests only."""
    return Digest(text) if _PRIVATE.fullmatch(text) else parse_digest(text)


def digest_of(data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
    """Hash `data`; `algorithm` is `sha256` or `sha512`."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


def digest_algorithm(digest: Digest) -> str:
    return digest.partition(":")[0]


def digest_to_wire(digest: Digest) -> bytes:
    """One byte for the algorithm, then the raw hash: 33 or 65 bytes."""
    algorithm, _, encoded = digest.partition(":")
    return bytes([_ALGORITHM_CODES[algorithm]]) + bytes.fromhex(encoded)


def digest_from_wire(data: bytes) -> Digest:
    """Inverse of `digest_to_wire`; raise ValueError for anything else."""
    name = _ALGORITHM_NAMES.get(data[0]) if data else None
    if name is None or len(data) - 1 != _WIRE_BYTES[name]:
        raise ValueError("malformed digest on the wire")
    return Digest(f"{name}:{data[1:].hex()}")


def parse_host_id(text: str) -> HostId:
    """Return `text` as a host id; raise ValueError for any other form."""
    if _HOST_ID.fullmatch(text) is None:
        raise ValueError(f"not a host id: {text[:40]!r}")
    return HostId(text)


def tag_key(upstream: str, repository: str, tag: str) -> TagKey:
    """Name a tag without naming it: the key under which peers ask for its statement."""
    text = "\0".join(("p2pdist tag", upstream, repository, tag))
    return TagKey(hashlib.sha256(text.encode()).digest())
