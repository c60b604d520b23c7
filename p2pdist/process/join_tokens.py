"""Join tokens: made where the CA is, and believed by a tracker that has its key.

A MAC under a key that is derived from the CA's, and no secret that a tracker is told of beforehand:
`ca token` needs no connection to anybody, and a tracker has to remember spent tokens alone.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.model.identity import IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.joining import (
    ID_BYTES,
    MAC_BYTES,
    MANY_PREFIX,
    TOKEN_PREFIX,
    TOKEN_TEXT_MAX,
    Token,
)
from p2pdist.process.ca import Ca
from p2pdist.process.certificates import fingerprint

TTL_S_MAX: Final = 30 * 86400.0
_encoder = msgspec.msgpack.Encoder()
# One kind shown as the other has a MAC that does not fit.
_PURPOSES: Final = {TOKEN_PREFIX: b"p2pdist join token 1", MANY_PREFIX: b"p2pdist join token 2"}
_decoder = msgspec.msgpack.Decoder(Token)


def new_token(
    ca: Ca,
    tracker: str,
    role: IdentityRole,
    host_id: HostId | None,
    *,
    ends_s: float,
    uses: int = 1,
) -> str:
    """Return the text of a token that `tracker` takes so often, until `ends_s` (Unix seconds).

    Raises ValueError for several uses where there may be one only.
    """
    words = [
        tracker,
        fingerprint(ca.certificate.public_bytes(Encoding.DER)),
        secrets.token_bytes(ID_BYTES),
        role.value,
        host_id or "",
        int(ends_s),
        uses,
    ]
    if fault := msgspec.convert(words, Token).fault():
        raise ValueError(fault)
    prefix = TOKEN_PREFIX if uses == 1 else MANY_PREFIX
    said = _encoder.encode(words[:-1] if uses == 1 else words)
    body = base64.urlsafe_b64encode(said + _mac(ca, prefix, said))
    return prefix + body.decode().rstrip("=")


def read_token(text: str) -> Token:
    """Return what a token says, believed or not; raise ValueError for what is none."""
    return _parts(text)[1]


def believed_token(ca: Ca, text: str) -> Token:
    """Return what a token of this CA says; raise ValueError for any other."""
    prefix, token, said, mac = _parts(text)
    if not hmac.compare_digest(mac, _mac(ca, prefix, said)):
        raise ValueError("the token was not made with this CA, or was changed")
    if fault := token.fault():
        raise ValueError(fault)
    return token


def _parts(text: str) -> tuple[str, Token, bytes, bytes]:
    prefix = text[: len(TOKEN_PREFIX)]
    if prefix not in _PURPOSES or len(text) > TOKEN_TEXT_MAX:
        raise ValueError("this is no join token: `p2pdist ca token` makes one")
    body = text.removeprefix(prefix)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        said, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        return prefix, _decoder.decode(said), said, mac
    except (ValueError, msgspec.DecodeError):
        raise ValueError("the join token is damaged: copy all of it") from None


def _mac(ca: Ca, prefix: str, said: bytes) -> bytes:
    number = ca.key.private_numbers().private_value.to_bytes(32)
    key = HKDF(SHA256(), 32, salt=None, info=_PURPOSES[prefix]).derive(number)
    return hmac.digest(key, said, "sha256")
