"""The mutual handshake that starts every connection of ours: nonces keyed by the cluster secret.

    client → server   Hello (protocol range, features, identity, nonce)
    server → client   Hello, proof of the server over both hellos
    client → server   proof of the client over both hellos

A proof is HMAC-SHA-256 under the cluster secret over a role word and both hellos as they were
sent, so it binds host id, role, protocol range, feature bits and the optional ticket, and cannot
be replayed on another connection. It authenticates the ends, it does not encrypt.

A server that keeps no link with this client says so, and until when, in its hello: the proof covers
the refusal, and neither end has spent more than a few hashes on it.

While one secret takes the other's place, a host believes two. The server proves both: its first one
as ever, the other in its hello (`also`), and the client answers by the first of its own that was
proved. So a client says nothing about its secrets before the server has shown one of them, nobody
dials twice, and an older client, which looks at the first proof alone, goes by the server's first.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from p2pdist.errors import LinkRefused, PeerFault, WrongSecret
from p2pdist.model.clocks import UNIX_MS_MAX
from p2pdist.model.clones import INSTANCE_BYTES
from p2pdist.model.cluster_secrets import ClusterSecrets, mark_of
from p2pdist.model.ids import parse_host_id
from p2pdist.model.members import PROTOCOL_MAX, PROTOCOL_MIN, Member

NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
NO_PROOF: Final = bytes(PROOF_BYTES)
"""Sent by a client whose server does not know the secret, so that the server hears why it is left:
nobody can find anything out from it."""
HELLO_BYTES_MAX: Final = 4096

# Feature bits.
LINK_USE: Final = 1
"""It knows the frame `LinkUse`, by which idle links are ended."""
DEMAND: Final = 2
"""It knows the flag `demand` of `Interest`: a host that says so is to be promised nothing."""
WHO_ELSE: Final = 4
"""It knows the frames `WhoElse` and `Others`, by which proxies name readers to each other."""
TICKETS: Final = 16
"""It knows the frame `Ticket`, by which hosts prove that they may have a blob."""
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
    also: Annotated[bytes, msgspec.Meta(max_length=PROOF_BYTES)] = b""
    """Of a server alone: its proof under the second secret that it believes, over both hellos with
    zeros in this place; empty: it believes one. The first secret's proof covers it as it is."""


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
    mark: bytes = b""
    """Of the secret that both ends have proved, see `ClusterSecrets`."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Hello)


class _Side:
    def __init__(
        self,
        secrets: ClusterSecrets,
        me: Member,
        random_bytes: Callable[[int], bytes],
        features: int,
        unix_ms: int,
        instance: bytes,
    ) -> None:
        self._secrets = secrets
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
        """A keyed hash of both hellos as they were sent, once both ends are believed."""

    def _agree(self, secret: bytes, other: Hello, client: bytes, server: bytes) -> Session:
        self.hellos = _keyed(secret, b"hellos", client, server)
        protocol = min(self._own.protocol_max, other.protocol_max)
        if protocol < max(self._own.protocol_min, other.protocol_min):
            theirs = f"{other.protocol_min}-{other.protocol_max}"
            ours = f"{self._own.protocol_min}-{self._own.protocol_max}"
            raise PeerFault(f"no common protocol: they speak {theirs}, we speak {ours}")
        features = self._own.features & other.features
        mark = mark_of(secret)
        return Session(other.member, protocol, features, other.unix_ms, other.instance, mark)


class ClientHandshake(_Side):
    """The end that dialled: send `hello`, give the answer to `finish`, send what it returns."""

    def __init__(
        self,
        secrets: ClusterSecrets,
        me: Member,
        random_bytes: Callable[[int], bytes],
        features: int = 0,
        unix_ms: int = 0,
        instance: bytes = b"",
    ) -> None:
        super().__init__(secrets, me, random_bytes, features, unix_ms, instance)
        self.hello = self._own_bytes

    def finish(self, server_hello: bytes, server_proof: bytes) -> tuple[bytes, Session]:
        """Return our proof and the session.

        Raise WrongSecret where the server is not one of ours (`NO_PROOF` tells it), LinkRefused
        where it wants no link.
        """
        other = decode_hello(server_hello)
        secret = self._proved(server_hello, server_proof, other.also)
        if (refusal := other.refusal) is not None:
            known = refusal.reason if refusal.reason in REFUSALS else OTHER
            raise LinkRefused(known, refusal.retry_s)
        session = self._agree(secret, other, self.hello, server_hello)
        return _keyed(secret, b"client", self.hello, server_hello), session

    def _proved(self, hello: bytes, proof: bytes, also: bytes) -> bytes:
        """Return the first of our secrets that the server knows; raise WrongSecret."""
        blank = hello.replace(also, NO_PROOF, 1) if also else b""
        for secret in self._secrets.each:
            if hmac.compare_digest(_keyed(secret, b"server", self.hello, hello), proof):
                return secret
            if also and hmac.compare_digest(_keyed(secret, b"also", self.hello, blank), also):
                return secret
        raise WrongSecret


class ServerHandshake(_Side):
    """The end that accepted: `answer` the hello, then `finish` with the client's proof."""

    def __init__(
        self,
        secrets: ClusterSecrets,
        me: Member,
        random_bytes: Callable[[int], bytes],
        features: int = 0,
        unix_ms: int = 0,
        instance: bytes = b"",
    ) -> None:
        super().__init__(secrets, me, random_bytes, features, unix_ms, instance)
        self._client_hello = b""
        self.refusal: Refusal | None = None
        """What `answer` told the client: it sends no proof, and `finish` is not for it."""

    def answer(
        self, client_hello: bytes, refuse: Callable[[Hello], Refusal | None] = lambda _: None
    ) -> tuple[bytes, bytes]:
        """Return our hello and our proof; raise PeerFault for a malformed hello.

        `refuse` says whether this client is turned away; who it is has not been proved by then.
        """
        self._client_hello = client_hello
        self.refusal = refuse(decode_hello(client_hello))
        own = msgspec.structs.replace(self._own, refusal=self.refusal)
        self._own_bytes = self._with_also(own, client_hello)
        proof = _keyed(self._secrets.first, b"server", client_hello, self._own_bytes)
        return self._own_bytes, proof

    def _with_also(self, own: Hello, client_hello: bytes) -> bytes:
        """Our hello as it is sent, with the proof of the second secret where there is one."""
        if len(self._secrets.each) == 1:
            return _encoder.encode(own)
        blank = _encoder.encode(msgspec.structs.replace(own, also=NO_PROOF))
        also = _keyed(self._secrets.each[1], b"also", client_hello, blank)
        return _encoder.encode(msgspec.structs.replace(own, also=also))

    def finish(self, client_proof: bytes) -> Session:
        """Return the session; raise PeerFault where the client is not one of ours."""
        client, server = self._client_hello, self._own_bytes
        for secret in self._secrets.each:
            if hmac.compare_digest(_keyed(secret, b"client", client, server), client_proof):
                return self._agree(secret, decode_hello(client), client, server)
        raise WrongSecret


def _keyed(secret: bytes, word: bytes, client: bytes, server: bytes) -> bytes:
    """`word` says who proves what, so that no proof is good as another one."""
    both = b"".join((len(client).to_bytes(4), client, len(server).to_bytes(4), server))
    return hmac.digest(secret, word + both, "sha256")


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
    if len(hello.also) not in (0, PROOF_BYTES):
        raise PeerFault("hello with a short proof")
    return hello
