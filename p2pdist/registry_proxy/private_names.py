"""Gives blobs that only some may read the names by which hosts exchange them."""

from __future__ import annotations

import hashlib

from p2pdist.model.ids import PRIVATE, Digest
from p2pdist.model.private_digests import SCOPE_BYTES, Scope
from p2pdist.oci.names import ImageName


class PrivateNames:
    """All proxies with one signing key give the same ones."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes that proxies keep to themselves, see `Signer.derived`."""
        self._key = key

    def scope(self, name: ImageName) -> Scope:
        return Scope(self._hash("scope", name.upstream, name.repository))

    def digest(self, name: ImageName, digest: Digest) -> Digest:
        """Return what `digest` goes by as a blob of this repository."""
        blob = self._hash("blob", name.upstream, name.repository, digest)
        return Digest(f"{PRIVATE}:{self.scope(name).hex()}{blob.hex()}")

    def _hash(self, *words: str) -> bytes:
        """16 bytes: whoever looks for two of a kind would have to know the key."""
        said = "\0".join(words).encode()
        return hashlib.blake2b(said, key=self._key, digest_size=SCOPE_BYTES).digest()
