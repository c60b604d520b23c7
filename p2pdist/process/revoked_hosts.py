"""Whose certificates count for nothing any more: records signed by a CA of the cluster.

A record names hosts by their ids, for good: none takes one back, and a host that is trusted again
gets another id. So what two trackers know is put together by taking all of it, in any order, and
who is told less forgets nothing. A list of X.509 (RFC 5280, section 5) would name certificates by
serial numbers, which nobody keeps of those that a tracker renewed, and a thief's could be the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.model.control import HOST_RECORD_BYTES_MAX, HOST_RECORDS_MAX
from p2pdist.model.ids import HostId
from p2pdist.process.ca import Ca
from p2pdist.process.certificates import fingerprint

HOSTS_MAX: Final = 4096
"""All together: 80 kB, which a tracker sends to each host that connects."""
HOSTS_OF_RECORD_MAX: Final = 128
_ID_BYTES: Final = 16
_MARK_BYTES: Final = 8
_SIGNATURE_BYTES_MAX: Final = 80
# What a CA signs otherwise begins as DER does, with 0x30.
_PURPOSE: Final = b"p2pdist revoked hosts 1\0"


class _Said(msgspec.Struct, frozen=True, array_like=True):
    ca: Annotated[bytes, msgspec.Meta(min_length=_MARK_BYTES, max_length=_MARK_BYTES)]
    """The beginning of the fingerprint of who signed it."""
    at_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 37)]
    hosts: Annotated[bytes, msgspec.Meta(max_length=_ID_BYTES * HOSTS_OF_RECORD_MAX)]


class _Record(msgspec.Struct, frozen=True, array_like=True):
    said: Annotated[bytes, msgspec.Meta(max_length=HOST_RECORD_BYTES_MAX)]
    signature: Annotated[bytes, msgspec.Meta(max_length=_SIGNATURE_BYTES_MAX)]


_encoder = msgspec.msgpack.Encoder()
_said = msgspec.msgpack.Decoder(_Said)
_record = msgspec.msgpack.Decoder(_Record)


@dataclass(frozen=True, slots=True)
class Revoked:
    """What one record says."""

    hosts: frozenset[HostId]
    at_s: int
    """When, in Unix seconds."""


class UnknownCa(ValueError):
    """A record by a CA that is not believed here, or not yet."""


def sign_revocation(ca: Ca, hosts: Sequence[HostId], now_s: float) -> bytes:
    """Return a record that takes `hosts`, `HOSTS_OF_RECORD_MAX` at most, out of the cluster."""
    ids = b"".join(map(bytes.fromhex, hosts))
    mark = fingerprint(ca.certificate.public_bytes(Encoding.DER))[:_MARK_BYTES]
    said = _encoder.encode(msgspec.convert([mark, int(now_s), ids], _Said))
    return _encoder.encode(_Record(said, ca.key.sign(_PURPOSE + said, ec.ECDSA(SHA256()))))


def open_revocation(record: bytes, cas: Iterable[bytes]) -> Revoked:
    """Return what a record of one of `cas` (DER) says; raise UnknownCa for another CA's, ValueError
    for one that is malformed or does not hold. 0.1 ms: for a thread where there are many."""
    if len(record) > HOST_RECORD_BYTES_MAX:
        raise ValueError(f"a record of {len(record)} bytes")
    try:
        outer = _record.decode(record)
        said = _said.decode(outer.said)
    except msgspec.DecodeError as error:
        raise ValueError(f"malformed record: {error}") from None
    if not said.hosts or len(said.hosts) % _ID_BYTES:
        raise ValueError("malformed record: no whole host ids")
    try:
        _key_of(said.ca, cas).verify(outer.signature, _PURPOSE + outer.said, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise ValueError("the signature of the record does not hold") from None
    starts = range(0, len(said.hosts), _ID_BYTES)
    hosts = frozenset(HostId(said.hosts[at : at + _ID_BYTES].hex()) for at in starts)
    return Revoked(hosts, said.at_s)


def _key_of(mark: bytes, cas: Iterable[bytes]) -> ec.EllipticCurvePublicKey:
    for der in cas:
        if fingerprint(der)[:_MARK_BYTES] == mark:
            key = x509.load_der_x509_certificate(der).public_key()
            if isinstance(key, ec.EllipticCurvePublicKey):
                return key
    raise UnknownCa("a record of a CA that is not believed here")


class RevokedHosts:
    """What is believed at one daemon; for its event loop. It only grows."""

    def __init__(self) -> None:
        self.trouble = ""
        """What is left out of what was read or heard, and why."""
        self._since: dict[HostId, int] = {}
        self._records: list[bytes] = []
        self._later: dict[bytes, None] = {}
        """Records of CAs that are not believed so far: hosts take up a new CA one by one."""

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, host: object) -> bool:
        return host in self._since

    @property
    def since(self) -> Mapping[HostId, int]:
        """The hosts, and since when, in Unix seconds."""
        return MappingProxyType(self._since)

    @property
    def records(self) -> list[bytes]:
        """Those that are believed, in the order in which they came."""
        return list(self._records)

    def why(self, host: HostId) -> str:
        """Return why a certificate for `host` counts for nothing; empty: it counts."""
        at_s = self._since.get(host)
        return "" if at_s is None else f"host {host} was revoked, {date_text(at_s)}"

    def unknown(self, records: Iterable[bytes]) -> list[bytes]:
        """Return what is worth a look: what is not known yet, and what no CA was known of."""
        known = set(self._records)
        return [one for one in dict.fromkeys([*self._later, *records]) if one not in known]

    def take(self, judged: Iterable[tuple[bytes, Revoked | ValueError]]) -> frozenset[HostId]:
        """Take in what `judge` found; return the hosts that are new among them."""
        found: set[HostId] = set()
        for record, said in judged:
            if isinstance(said, UnknownCa):
                if len(self._later) < HOST_RECORDS_MAX:
                    self._later[record] = None
                continue
            self._later.pop(record, None)
            if isinstance(said, ValueError):
                self.trouble = str(said)
            elif not self._has_room(said.hosts):
                self.trouble = f"more than {HOSTS_MAX} hosts are revoked: it is time for another CA"
            else:
                found |= said.hosts - self._since.keys()
                self._records.append(record)
                for host in said.hosts:
                    self._since.setdefault(host, said.at_s)
        return frozenset(found)

    def _has_room(self, hosts: frozenset[HostId]) -> bool:
        room = len(self._records) < HOST_RECORDS_MAX
        return room and len(self._since.keys() | hosts) <= HOSTS_MAX

    def validate(self) -> None:
        """Assert what must hold after every call; for tests."""
        assert len(self._records) == len(set(self._records)) <= HOST_RECORDS_MAX
        assert len(self._since) <= HOSTS_MAX
        assert len(self._later) <= HOST_RECORDS_MAX
        assert self._later.keys().isdisjoint(self._records)


def judge(
    records: Iterable[bytes], cas: Sequence[bytes]
) -> list[tuple[bytes, Revoked | ValueError]]:
    """Return each record with what it says, or why it says nothing. Blocking."""
    return [(record, _opened(record, cas)) for record in records]


def _opened(record: bytes, cas: Sequence[bytes]) -> Revoked | ValueError:
    try:
        return open_revocation(record, cas)
    except ValueError as error:
        return error


def date_text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
