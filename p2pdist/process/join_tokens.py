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
from p2pdist.model.joining import ID_BYTES, MAC_BYTES, TOKEN_PREFIX, TOKEN_TEXT_MAX, Token
from p2pdist.process.ca import Ca
from p2pdist.process.certificates import fingerprint

TTL_S_MAX: Final = 30 * 86400.0
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Token)


def new_token(
    ca: Ca, tracker: str, role: IdentityRole, host_id: HostId | None, *, ends_s: float
) -> str:
    """Return the text of a token that `tracker` takes once, until `ends_s` (Unix seconds)."""
    said = _encoder.encode(
        msgspec.convert(
            [
                tracker,
                fingerprint(ca.certificate.public_bytes(Encoding.DER)),
                secrets.token_bytes(ID_BYTES),
                role.value,
                host_id or "",
                int(ends_s),
            ],
            Token,
        )
    )
    return TOKEN_PREFIX + base64.urlsafe_b64encode(said + _mac(ca, said)).decode().rstrip("=")


def read_token(text: str) -> Token:
    """Return what a token says, believed or not; raise ValueError for what is none."""
    return _parts(text)[0]


def believed_token(ca: Ca, text: str) -> Token:
    """Return what a token of this CA says; raise ValueError for any other."""
    token, said, mac = _parts(text)
    if not hmac.compare_digest(mac, _mac(ca, said)):
        raise ValueError("the token was not made with this CA, or was changed")
    return token


def _parts(text: str) -> tuple[Token, bytes, bytes]:
    if not text.startswith(TOKEN_PREFIX) or len(text) > TOKEN_TEXT_MAX:
        raise ValueError("this is no join token: `p2pdist ca token` makes one")
    body = text.removeprefix(TOKEN_PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        said, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        return _decoder.decode(said), said, mac
    except (ValueError, msgspec.DecodeError):
        raise ValueError("the join token is damaged: copy all of it") from None


def _mac(ca: Ca, said: bytes) -> bytes:
    number = ca.key.private_numbers().private_value.to_bytes(32)
    key = HKDF(SHA256(), 32, salt=None, info=b"p2pdist join token 1").derive(number)
    return hmac.digest(key, said, "sha256")
