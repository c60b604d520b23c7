"""Messages between hosts and their tracker: msgpack frames, cut by `control_wire`.

A key names what a swarm is about: a digest (`sha256:…`, or a private one, `private:…`) or a tag key
(`tag:` and 64 hex characters); what a lease is about is a digest, or `origin:` and a digest
(`origin_key`). All lists are bounded by `limits`; a frame has at most `FRAME_BYTES_MAX` bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NewType

import msgspec

from p2pdist.model.ids import Digest, TagKey, parse_exchanged
from p2pdist.model.members import Member

FRAME_BYTES_MAX: Final = 1 << 20
DELTAS_MAX: Final = 4096
HANDOUT_MAX: Final = 32
REVOCATIONS_MAX: Final = 256

SwarmKey = NewType("SwarmKey", str)
ORIGIN: Final = "origin:"
_TAG_KEY: Final = re.compile(r"tag:[0-9a-f]{64}")

PREWARM_BLOBS_MAX: Final = 4096
"""Blobs and manifests of one order; 90 bytes each."""
PROOF_PARTS_MAX: Final = 256
PROOF_PART_BYTES_MAX: Final = 4096
"""1 MiB of reads for one proof at most."""

TRACE_UNITS_MAX: Final = 512
"""Of one layer: half a GB of archive, read by a start before it is done; 2.6 kB at most."""
TRACE_UNIT_MAX: Final = (1 << 23) - 1
"""Units are MiB of a layer's archive: 8 TiB."""

REQUEST_BYTES_MAX: Final = 1024
"""A request for a certificate; one of ours has 220."""
CERTIFICATE_BYTES_MAX: Final = 4096
"""One of ours has 600; an RSA key of 4096 bits and its signature take 1.6 kB."""
CAS_MAX: Final = 8
"""Old and new ones, while hosts go from one to the other."""
RENEW_RETRY_S_MAX: Final = 366 * 86400.0

HOST_RECORDS_MAX: Final = 256
HOST_RECORD_BYTES_MAX: Final = 2304
"""128 host ids of 16 bytes, and a signature: 600 kB in a message at most."""

JOB_ID: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")

_JobId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z][0-9a-z-]{0,63}$")]
LINE_MAX: Final = 255
_Line = Annotated[str, msgspec.Meta(max_length=LINE_MAX)]
_Key = Annotated[str, msgspec.Meta(max_length=160)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
_Units = Annotated[
    list[Annotated[int, msgspec.Meta(ge=0, le=TRACE_UNIT_MAX)]],
    msgspec.Meta(max_length=TRACE_UNITS_MAX),
]
_Certificate = Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]
_Records = Annotated[list[bytes], msgspec.Meta(max_length=REVOCATIONS_MAX)]
_HostRecord = Annotated[bytes, msgspec.Meta(max_length=HOST_RECORD_BYTES_MAX)]


def digest_key(digest: Digest) -> SwarmKey:
    return SwarmKey(digest)


def tag_swarm_key(key: TagKey) -> SwarmKey:
    return SwarmKey(f"tag:{key.hex()}")


def origin_key(digest: Digest) -> SwarmKey:
    """The right to read a blob from its registry, of all datacenters that have federated trackers.

    The plain digest is the right of one datacenter to fetch it from outside, whatever the source.
    """
    return SwarmKey(f"{ORIGIN}{digest}")


def parse_lease_key(text: str) -> SwarmKey:
    """Return `text` as the key of a lease; raise ValueError for any other form."""
    parse_swarm_key(text.removeprefix(ORIGIN))
    return SwarmKey(text)


def parse_swarm_key(text: str) -> SwarmKey:
    """Return `text` as a key; raise ValueError for any other form."""
    if _TAG_KEY.fullmatch(text) is None:
        parse_exchanged(text)
    return SwarmKey(text)


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """What one host now holds under `key`; `held_chunks` 0 and not complete: nothing any more."""

    key: _Key
    held_chunks: _Count
    complete: bool


class _Message(msgspec.Struct, frozen=True, tag_field="t"):
    pass


class Announce(_Message, frozen=True, tag="announce"):
    """Host to tracker: changes since the last one; `full` replaces all that was said before."""

    deltas: Annotated[list[Delta], msgspec.Meta(max_length=DELTAS_MAX)]
    full: bool = False


class Join(_Message, frozen=True, tag="join"):
    """Host to tracker: name holders of `key`, and count me as a reader when `member`."""

    seq: _Count
    key: _Key
    member: bool = True
    exclude: Annotated[list[str], msgspec.Meta(max_length=HANDOUT_MAX)] = []
    """Host ids that are known already or were of no use."""


class Leave(_Message, frozen=True, tag="leave"):
    key: _Key


class LeaseAsk(_Message, frozen=True, tag="lease_ask"):
    """Host to tracker: let me fetch `key` from outside of this datacenter (also renews)."""

    seq: _Count
    key: _Key
    on_behalf: Member | None = None
    """From a tracker to one of another datacenter: the proxy that will hold it."""


class LeaseEnd(_Message, frozen=True, tag="lease_end"):
    key: _Key
    fence: _Count


class Revoke(_Message, frozen=True, tag="revoke"):
    """Proxy to tracker: signed revocations to pass on; the tracker checks them like any reader."""

    records: _Records


class Status(_Message, frozen=True, tag="status"):
    """Host to tracker, with each heartbeat: a few numbers that the tracker sums up."""

    numbers: Annotated[dict[str, float], msgspec.Meta(max_length=16)]


class Describe(_Message, frozen=True, tag="describe"):
    """Host to tracker, first on every connection: what selectors choose by, and what it can do."""

    name: _Line
    """As people call the host: its host name, unless `host.name` says otherwise."""
    labels: Annotated[list[_Line], msgspec.Meta(max_length=64)]
    """`key=value` each."""
    platform: _Line
    """`os/architecture[/variant]`, as image indexes name it."""
    runtimes: Annotated[list[_Line], msgspec.Meta(max_length=4)] = []
    """`docker`, `containerd`: runtimes that it may pull images into."""
    mirror: bool = False
    """A proxy that its host's runtime pulls from as well, as a peer's does of a peer."""


class PrewarmReport(_Message, frozen=True, tag="prewarm_report"):
    """Host to tracker: what offers do not tell of an order. Readiness itself is read off the
    offers and proofs, never off a report."""

    job: _JobId
    state: Literal["fetching", "fetched", "unpacked", "failed"]
    code: Literal["", "no_space", "not_found", "denied", "runtime", "error"] = ""
    reason: Annotated[str, msgspec.Meta(max_length=512)] = ""


class Proof(_Message, frozen=True, tag="proof"):
    """Host to tracker: BLAKE3 of the asked bytes, keyed; empty: some are not here (any more)."""

    seq: _Count
    hash: Annotated[bytes, msgspec.Meta(max_length=32)]


class Trace(_Message, frozen=True, tag="trace"):
    """Host to tracker: what a start of a container read of a layer, in the order of first reads."""

    layer: _Key
    units: _Units


class TraceAsk(_Message, frozen=True, tag="trace_ask"):
    """Host to tracker: what do starts read of this layer?"""

    seq: _Count
    layer: _Key


class Renew(_Message, frozen=True, tag="renew"):
    """Host to tracker, over TLS and where both set `FEATURE_RENEW`: sign my next certificate. Of
    the request its key alone is taken; who it is says the certificate of the connection."""

    seq: _Count
    request: Annotated[bytes, msgspec.Meta(max_length=REQUEST_BYTES_MAX)]
    """PKCS #10, in DER."""


class Welcome(_Message, frozen=True, tag="welcome"):
    """Tracker to host, first: how often to announce, and what was revoked of late."""

    epoch: str
    """Changes when the tracker lost its state: then announce in full."""
    announce_interval_s: float
    heartbeat_s: float
    refused: _Line = ""
    """Which of the host's addresses others are not told, and from where it is seen; else empty."""
    unnamed: bool = False
    """That was all of them: others are not told of the host."""


class Handout(_Message, frozen=True, tag="handout"):
    """Tracker to host: the answer to the join with the same `seq`, nearest and fullest first."""

    seq: _Count
    key: _Key
    members: Annotated[list[Member], msgspec.Meta(max_length=HANDOUT_MAX)]
    swarm_size: _Count = 0


class LeaseAnswer(_Message, frozen=True, tag="lease_answer"):
    """Tracker to host: `fence` grows with every grant of a key; 0: refused, `holder` has it."""

    seq: _Count
    key: _Key
    fence: _Count
    expires_in_s: float
    holder: Member | None = None
    """Beside a grant: who had it last and gave it back, so that it may be asked first."""
    holders: _Count = 0
    """How many hosts of the datacenter hold some of it: worth asking before anything outside."""


class Revoked(_Message, frozen=True, tag="revoked"):
    """Tracker to hosts: signed revocations, to be checked against the host's own keys."""

    records: _Records


class TraceAnswer(_Message, frozen=True, tag="trace_answer"):
    """Tracker to host: the answer to the question with the same `seq`; a hint, and no more."""

    seq: _Count
    units: _Units


class Renewed(_Message, frozen=True, tag="renewed"):
    """Tracker to host: the answer to the request with the same `seq`."""

    seq: _Count
    certificate: _Certificate = b""
    """In DER, for the host and role of the connection; empty: refused."""
    cas: Annotated[list[_Certificate], msgspec.Meta(max_length=CAS_MAX)] = []
    """In DER: those that the tracker believes; one of them issued it."""
    reason: _Line = ""
    retry_s: Annotated[float, msgspec.Meta(ge=0, le=RENEW_RETRY_S_MAX)] = 0.0
    """Of a refusal: when it may be asked again, at the earliest."""


class RevokedHosts(_Message, frozen=True, tag="revoked_hosts"):
    """Tracker to hosts, where both set `FEATURE_REVOKED_HOSTS`: whose certificates count for
    nothing any more, in records that a CA signed; all that it has, first and when it has more."""

    records: Annotated[list[_HostRecord], msgspec.Meta(max_length=HOST_RECORDS_MAX)]


class BlobRef(msgspec.Struct, frozen=True, array_like=True):
    digest: _Key
    size_bytes: _Count


class PrewarmImage(msgspec.Struct, frozen=True):
    """One image for one platform: all of it has to lie at the host, each part under its digest."""

    upstream: _Line
    repository: _Line
    tag: _Line
    """Empty for an image that was named by digest."""
    manifests: Annotated[list[_Key], msgspec.Meta(max_length=8)]
    """Digests from the top: of the index where there is one, then of the platform's manifest."""
    blobs: Annotated[list[BlobRef], msgspec.Meta(max_length=PREWARM_BLOBS_MAX)]
    """Config, then layers, each digest once."""


class Prewarm(_Message, frozen=True, tag="prewarm"):
    """Tracker to host: have these images; the same job again replaces the order (a new rate)."""

    job: _JobId
    images: Annotated[list[PrewarmImage], msgspec.Meta(max_length=64)]
    rate_bytes_per_s: _Count = 0
    """At a peer: of all that comes in for this job. At a proxy: of what comes in for it from
    outside of the datacenter. 0: no limit."""
    priority: int = 0
    """Orders of a higher one go first."""
    pin_until_unix_s: float = 0.0
    """Nothing of it is evicted before."""
    into_runtime: bool = False


class PrewarmEnd(_Message, frozen=True, tag="prewarm_end"):
    """Tracker to host: the job is over or was cancelled; `unpin`: its pins go as well."""

    job: _JobId
    unpin: bool = False


class ProofPart(msgspec.Struct, frozen=True, array_like=True):
    """At most `length` bytes from `offset` of what lies under `digest`: fewer at its end."""

    digest: _Key
    offset: _Count
    length: Annotated[int, msgspec.Meta(ge=0, le=PROOF_PART_BYTES_MAX)]


class Prove(_Message, frozen=True, tag="prove"):
    """Tracker to host: hash these bytes, one part behind the other, keyed by `key` (32 bytes), from
    the disk. A part of every blob is asked for, so that the loss of one shows at once."""

    seq: _Count
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    parts: Annotated[list[ProofPart], msgspec.Meta(max_length=PROOF_PARTS_MAX)]


ToTracker = (
    Announce
    | Join
    | Leave
    | LeaseAsk
    | LeaseEnd
    | Revoke
    | Status
    | Describe
    | PrewarmReport
    | Proof
    | Trace
    | TraceAsk
    | Renew
)
FromTracker = (
    Welcome
    | Handout
    | LeaseAnswer
    | Revoked
    | Prewarm
    | PrewarmEnd
    | Prove
    | TraceAnswer
    | Renewed
    | RevokedHosts
)

encoder = msgspec.msgpack.Encoder()
to_tracker_decoder = msgspec.msgpack.Decoder(ToTracker)
from_tracker_decoder = msgspec.msgpack.Decoder(FromTracker)
