"""How a host without a certificate gets its first one: the words on the wire of `p2pdist join`.

TLS 1.3, in which the tracker alone shows a certificate. The host greets; the tracker sends its CAs,
of which the host believes the one whose fingerprint is in its token; it checks that this one issued
the certificate of the connection, and only then sends token and request. `Renewed` is the answer.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from p2pdist.model.control import CAS_MAX, CERTIFICATE_BYTES_MAX, REQUEST_BYTES_MAX, Renewed

MAGIC: Final = b"p2pdist-join/1\n"
TOKEN_PREFIX: Final = "p2pj1."  # noqa: S105  # how one begins
MANY_PREFIX: Final = "p2pj2."
"""How one of several uses begins: a tracker that knows none says that this is no token, where it
would have taken one of a longer record for a token of one use."""
USES_MAX: Final = 30_000
"""A whole fleet; whoever takes the token is as many hosts."""
TOKEN_TEXT_MAX: Final = 1024
FINGERPRINT_BYTES: Final = 32
ID_BYTES: Final = 16
MAC_BYTES: Final = 32
JOIN_S: Final = 10.0
"""What either end has for all of it."""


class Token(msgspec.Struct, frozen=True, array_like=True):
    """What a token says; behind it comes a MAC that the CA's key makes."""

    tracker: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    """`HOST:PORT` of the one tracker that takes it."""
    ca: Annotated[bytes, msgspec.Meta(min_length=FINGERPRINT_BYTES, max_length=FINGERPRINT_BYTES)]
    """SHA-256 of the CA's certificate in DER: whoever else listens there gets to see nothing."""
    id: Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    """Of chance: the tracker remembers it once it is spent."""
    role: Literal["peer", "proxy", "tracker"]
    host_id: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")]
    """Empty: a new one."""
    ends_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
    """Unix seconds."""
    uses: Annotated[int, msgspec.Meta(ge=1, le=USES_MAX)] = 1
    """How many hosts, each with a host id of its own that the tracker makes."""

    def fault(self) -> str:
        """Why nobody may take it, whoever made it; empty: nothing."""
        if self.uses > 1 and self.role != "peer":
            return f"a token of several uses is for peers, and not for a {self.role}"
        if self.uses > 1 and self.host_id:
            return "a token of several uses is for no certain host id"
        return ""


class JoinHello(msgspec.Struct, frozen=True, tag_field="t", tag="hello"):
    pass


class JoinCas(msgspec.Struct, frozen=True, tag_field="t", tag="cas"):
    cas: Annotated[
        list[Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]],
        msgspec.Meta(max_length=CAS_MAX),
    ]
    """In DER."""


class JoinAsk(msgspec.Struct, frozen=True, tag_field="t", tag="ask"):
    token: Annotated[str, msgspec.Meta(max_length=TOKEN_TEXT_MAX)]
    request: Annotated[bytes, msgspec.Meta(max_length=REQUEST_BYTES_MAX)]
    """PKCS #10, in DER."""


encoder = msgspec.msgpack.Encoder()
of_host = msgspec.msgpack.Decoder(JoinHello | JoinAsk)
of_tracker = msgspec.msgpack.Decoder(JoinCas | Renewed)
OF_HOST_BYTES_MAX: Final = 4096
OF_TRACKER_BYTES_MAX: Final = (CAS_MAX + 2) * CERTIFICATE_BYTES_MAX
