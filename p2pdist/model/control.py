"""Messages between hosts and their tracker: msgpack frames on one WebSocket per host.

A key names what a swarm is about: a digest (`sha256:…`) or a tag key (`tag:` and 64 hex
characters); what a lease is about is a digest, or `origin:` and a digest (`origin_key`). All lists
are bounded by `limits`; a frame has at most `FRAME_BYTES_MAX` bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, NewType

import msgspec

from p2pdist.model.ids import Digest, TagKey, parse_digest
from p2pdist.model.members import Member

FRAME_BYTES_MAX: Final = 1 << 20
DELTAS_MAX: Final = 4096
HANDOUT_MAX: Final = 32
REVOCATIONS_MAX: Final = 256

SwarmKey = NewType("SwarmKey", str)
ORIGIN: Final = "origin:"
_TAG_KEY: Final = re.compile(r"tag:[0-9a-f]{64}")

_Key = Annotated[str, msgspec.Meta(max_length=160)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
_Records = Annotated[list[bytes], msgspec.Meta(max_length=REVOCATIONS_MAX)]


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
        parse_digest(text)
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


class Welcome(_Message, frozen=True, tag="welcome"):
    """Tracker to host, first: how often to announce, and what was revoked of late."""

    epoch: str
    """Changes when the tracker lost its state: then announce in full."""
    announce_interval_s: float
    heartbeat_s: float


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


ToTracker = Announce | Join | Leave | LeaseAsk | LeaseEnd | Revoke | Status
FromTracker = Welcome | Handout | LeaseAnswer | Revoked

encoder = msgspec.msgpack.Encoder()
to_tracker_decoder = msgspec.msgpack.Decoder(ToTracker)
from_tracker_decoder = msgspec.msgpack.Decoder(FromTracker)
