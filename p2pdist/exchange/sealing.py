"""Frames under keys that the two ends of a link alone know: AES-256-GCM, a record a piece.

    record = length (4, big-endian) | ciphertext | tag (16)

`length` counts what follows it, and is authenticated with it. As in TLS 1.3 (RFC 8446, sections
5.2 and 5.3) a direction has its own key, and the nonce is the number of the record, which is not
sent: a record that was changed, left out, repeated or moved does not open, and nothing behind it
is looked at. A key is used for `RECORDS_PER_KEY` records and makes the next one itself (section
7.2).

Not the records of TLS itself: 64 KiB through `ssl.SSLObject` cost 0.36 + 0.42 CPU-s/GiB at the two
ends, through `AESGCM` 0.10 + 0.10 (OpenSSL 3.0.19, AES-NI); that the kernel sends no file by itself
costs a link as much again (`python -m bench micro`). TLS agrees on the keys, see `securing`.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import SLICE_BYTES_MAX

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
PLAIN_BYTES_MAX: Final = SLICE_BYTES_MAX + 64
"""A slice with its header."""
# RFC 8446, section 5.5: 2^24.5 records of 16 KiB under one key; ours are four times as long.
RECORDS_PER_KEY: Final = 1 << 22
_LENGTH: Final = struct.Struct(">I")
_NONCE_BYTES: Final = 12
_NEXT_KEY: Final = b"p2pdist next key"


class _Direction:
    """The keys of one direction, each with the numbers of its records."""

    def __init__(self, key: bytes, records_per_key: int) -> None:
        assert len(key) == KEY_BYTES
        self._key = key
        self._cipher = AESGCM(key)
        self._records_per_key = records_per_key
        self._number = 0

    def step(self) -> tuple[AESGCM, bytes]:
        """Return the cipher and the nonce of the next record."""
        if self._number == self._records_per_key:
            self._key = hmac.digest(self._key, _NEXT_KEY, "sha256")
            self._cipher, self._number = AESGCM(self._key), 0
        nonce = self._number.to_bytes(_NONCE_BYTES)
        self._number += 1
        return self._cipher, nonce


class Seal:
    """Of one link: seals under the key that this end chose, opens under the other end's. Dead after
    the first record that fails."""

    def __init__(
        self, own_key: bytes, their_key: bytes, *, records_per_key: int = RECORDS_PER_KEY
    ) -> None:
        self._out = _Direction(own_key, records_per_key)
        self._in = _Direction(their_key, records_per_key)
        self._held = bytearray()
        """Of a record that has not come whole."""

    def seal(self, plain: bytes) -> bytes:
        """Return the records for `plain`, of any length."""
        if len(plain) <= PLAIN_BYTES_MAX:
            return b"".join(self._record(plain))
        parts: list[bytes] = []
        for at in range(0, len(plain), PLAIN_BYTES_MAX):
            parts += self._record(plain[at : at + PLAIN_BYTES_MAX])
        return b"".join(parts)

    def _record(self, plain: bytes) -> tuple[bytes, bytes]:
        cipher, nonce = self._out.step()
        head = _LENGTH.pack(len(plain) + TAG_BYTES)
        return head, cipher.encrypt(nonce, plain, head)

    def opened(self, data: memoryview) -> Iterator[bytes]:
        """Yield what is in the records that `data` completes; raise PeerFault for a wrong one."""
        while data:
            if not self._held and len(data) >= (stop := _stop(data)):
                yield self._open(data[:stop])
            else:
                stop = _stop(self._held) - len(self._held)
                self._held += data[:stop]
                if len(self._held) == _stop(self._held):
                    whole, self._held = self._held, bytearray()
                    yield self._open(memoryview(whole))
            data = data[stop:]

    def _open(self, record: memoryview) -> bytes:
        cipher, nonce = self._in.step()
        try:
            return cipher.decrypt(nonce, record[_LENGTH.size :], record[: _LENGTH.size])
        except InvalidTag:
            raise PeerFault("a record was changed on its way") from None


def _stop(record: memoryview | bytearray) -> int:
    """Return where the part of a record ends that can be told from its begin."""
    if len(record) < _LENGTH.size:
        return _LENGTH.size
    (length,) = _LENGTH.unpack_from(record)
    if not TAG_BYTES < length <= PLAIN_BYTES_MAX + TAG_BYTES:
        raise PeerFault(f"a record of {length} bytes")
    return _LENGTH.size + int(length)
