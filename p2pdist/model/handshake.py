"""The mutual handshake that starts every connection of ours: nonces keyed by the cluster secret.

    client → server   Hello (protocol range, features, identity, nonce)
    server → client   Hello, proof of the server over both hellos
    client → server   proof of the client over both hellos

A proof is HMAC-SHA-256 under the cluster secret over a role word and both hellos as they were
sent, so it binds host id, role, protocol range, feature bits and the optional ticket, and cannot
be replayed on another connection. It authenticates the ends, it does not encrypt.

A server that keeps no link with this client says so, and until when, in its hello: the proof covers
the refusal, and neither end has spent more than a few hashes on it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from p2pdist.errors import LinkRefused, PeerFault, WrongSecret
from p2pdist.model.clocks import UNIX_MS_MAX
from p2pdist.model.clones import INSTANCE_BYTES
from p2pdist.model.ids import parse_host_id
from p2pdist.model.members import PROTOCOL_MAX, PROTOCOL_MIN, Member

NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
NO_PROOF: Final = bytes(PROOF_BYTES)
"""Sent by a client whose server does not know the secret, so that the server hears why it is left:
nobody can find anything out from it."""
HELLO_BYTES_MAX: Final = 4096
SECRET_BYTES_MIN: Final = 16

# Feature bits.
LINK_USE: Final = 1
"""It knows the frame `LinkUse`, by which idle links are ended."""
DEMAND: Final = 2
"""It knows the flag `demand` of `Interest`: a host that says so is to be promised nothing."""
WHO_ELSE: Final = 4
"""It knows the frames `WhoElse` and `Others`, by which proxies name readers to each other."""
IDENTITY: Final = 8
"""It has a certificate: where both ends have one, they prove it to each other behind this."""

FULL: Final = "full"
DRAINING: Final = "draining"
ID_IN_USE: Final = "host_id_in_use"
"""Another host with the client's id is there, see `clones`."""
NO_IDENTITY: Final = "identity"
"""The client has no certificate, and `cluster.require_identity` is set."""
REFUSALS: Final = (FULL, DRAINING, ID_IN_USE, NO_IDENTITY)
OTHER: Final = "other"
"""What a reason that we do not know counts as."""
RETRY_S_MAX: Final = 3600


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Why a server keeps no link with a client, and after how long it may ask again."""

    reason: Annotated[str, msgspec.Meta(max_length=32)]
    retry_s: Annotated[int, msgspec.Meta(ge=1, le=RETRY_S_MAX)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    protocol_min: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    protocol_max: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    features: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    """Feature bits; a feature is used only where both ends set its bit."""
    member: Member
    nonce: bytes
    ticket: bytes = b""
    refusal: Refusal | None = None
    """Of a server alone; older clients do not look at it and find the connection closed."""
    unix_ms: Annotated[int, msgspec.Meta(ge=0, le=UNIX_MS_MAX)] = 0
    """The wall clock of the one who says hello; 0: an older version. For `clocks` alone."""
    instance: Annotated[bytes, msgspec.Meta(max_length=INSTANCE_BYTES)] = b""
    """Made up by each process when it starts; empty: an older version. For `clones` alone."""


class Session(msgspec.Struct, frozen=True):
    """What both ends agreed on."""

    member: Member
    """The other end."""
    protocol: int
    features: int
    unix_ms: int = 0
    """The other end's wall clock when it made its hello; 0: it did not tell."""
    instance: bytes = b""
    """The other end's, see `Hello`."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Hello)


class _Side:
    def __init__(
        self,
        secret: bytes,
        me: Member,
        random_bytes: Callable[[int], bytes],
        features: int,
        unix_ms: int,
        instance: bytes,
    ) -> None:
        assert len(secret) >= SECRET_BYTES_MIN
        self._secret = secret
        nonce = random_bytes(NONCE_BYTES)
        hello = Hello(
            PROTOCOL_MIN,
            PROTOCOL_MAX,
            features,
            me,
            nonce,
            unix_ms=unix_ms,
            instance=instance,
        )
        self._own = hello
        self._own_bytes = _encoder.encode(hello)
        self.hellos = b""
        """A keyed hash of both hellos as they were sent, once the other one has come."""

    def _proof(self, word: bytes, client: bytes, server: bytes) -> bytes:
        both = b"".join((len(client).to_bytes(4), client, len(server).to_bytes(4), server))
        self.hellos = hmac.digest(self._secret, b"hellos" + both, "sha256")
        return hmac.digest(self._secret, word + both, "sha256")

    def _check(self, expected: bytes, proof: bytes) -> None:
        if not hmac.compare_digest(expected, proof):
            raise WrongSecret

    def _agree(self, other: Hello) -> Session:
        protocol = min(self._own.protocol_max, other.protocol_max)
        if protocol < max(self._own.protocol_min, other.protocol_min):
            theirs = f"{other.protocol_min}-{other.protocol_max}"
            ours = f"{self._own.protocol_min}-{self._own.protocol_max}"
            raise PeerFault(f"no common protocol: they speak {theirs}, we speak {ours}")
        features = self._own.features & other.features
        return Session(other.member, protocol, features, other.unix_ms, other.instance)


class ClientHandshake(_Side):
    """The end that dialled: send `hello`, give the answer to `finish`, send what it returns."""

    def __init__(
        self,
        secret: bytes,
        me: Member,
        random_bytes: Callable[[int], bytes],
        features: int = 0,
        unix_ms: int = 0,
        instance: bytes = b"",
    ) -> None:
        super().__init__(secret, me, random_bytes, features, unix_ms, instance)
        self.hello = self._own_bytes

    def finish(self, server_hello: bytes, server_proof: bytes) -> tuple[bytes, Session]:
        """Return our proof and the session.

        Raise WrongSecret where the server is not one of ours (`NO_PROOF` tells it), LinkRefused
        where it wants no link.
        """
        other = decode_hello(server_hello)
        self._check(self._proof(b"server", self.hello, server_hello), server_proof)
        if (refusal := other.refusal) is not None:
            known = refusal.reason if refusal.reason in REFUSALS else OTHER
            raise LinkRefused(known, refusal.retry_s)
        return self._proof(b"client", self.hello, server_hello), self._agree(other)


class ServerHandshake(_Side):
    """The end that accepted: `answer` the hello, then `finish` with the client's proof."""

    def __init__(
        self,
        secret: bytes,
        me: Member,
        random_bytes: Callable[[int], bytes],
        features: int = 0,
        unix_ms: int = 0,
        instance: bytes = b"",
    ) -> None:
        super().__init__(secret, me, random_bytes, features, unix_ms, instance)
        self._client_hello = b""
        self.refusal: Refusal | None = None
        """What `answer` told the client: it sends no proof, and `finish` is not for it."""

    def answer(
        self, client_hello: bytes, refuse: Callable[[Hello], Refusal | None] = lambda _: None
    ) -> tuple[bytes, bytes]:
        """Return our hello and our proof; raise PeerFault for a malformed hello.

        `refuse` says whether this client is turned away; who it is has not been proved by then.
        """
        hello = decode_hello(client_hello)
        self._client_hello = client_hello
        if (refusal := refuse(hello)) is not None:
            self.refusal = refusal
            self._own_bytes = _encoder.encode(msgspec.structs.replace(self._own, refusal=refusal))
        return self._own_bytes, self._proof(b"server", client_hello, self._own_bytes)

    def finish(self, client_proof: bytes) -> Session:
        """Return the session; raise PeerFault where the client is not one of ours."""
        self._check(self._proof(b"client", self._client_hello, self._own_bytes), client_proof)
        return self._agree(decode_hello(self._client_hello))


def decode_hello(data: bytes) -> Hello:
    """Decode and validate a hello; raise PeerFault for anything else."""
    if len(data) > HELLO_BYTES_MAX:
        raise PeerFault(f"hello of {len(data)} bytes")
    try:
        hello = _decoder.decode(data)
        parse_host_id(hello.member.host_id)
    except (msgspec.DecodeError, ValueError) as error:
        raise PeerFault(f"malformed hello: {error}") from None
    if len(hello.nonce) != NONCE_BYTES:
        raise PeerFault("hello with a short nonce")
    return hello
