"""Reads the archive of a layer as its bytes pass by: what lies where, without keeping any content.

    bytes ──▶ TarReader.feed ──▶ Member, Member, …

Headers are what the standard library takes them for (`tar_header`). Not so the archive: `tarfile`
wants to pull, copies all content on its way, takes a broken header for the end, and rounds times to
what a float can hold. Whatever is not understood makes the whole layer unfit (`UnfitLayer`): it is
then pulled as ever, by the runtime, whose word on it counts.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec

from p2pdist.errors import P2pdistError
from p2pdist.streaming.core.tar_header import BLOCK_BYTES, Header, header_of

NAME_BYTES_MAX: Final = 4096
"""PATH_MAX: what is longer cannot be unpacked either."""
PART_BYTES_MAX: Final = 255
"""NAME_MAX, of a name in a directory."""
ID_MAX: Final = (1 << 32) - 2
"""-1 is no user: to chown(2) it says that nothing changes."""
EXTENSION_BYTES_MAX: Final = 1 << 20
"""Of all extended headers of an entry; Linux keeps 64 KiB of extended attributes for a file."""
XATTRS_BYTES_MAX: Final = 128 << 10
SIZE_MAX_BYTES: Final = 1 << 43

_XATTR: Final = b"SCHILY.xattr."
# Not `CONTTYPE`, which POSIX calls regular, too: containerd, Docker and umoci refuse it.
_REGULAR: Final = frozenset((tarfile.REGTYPE, tarfile.AREGTYPE))
_EMPTY_KINDS: Final = frozenset(
    (
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.DIRTYPE,
        tarfile.FIFOTYPE,
    )
)
_KINDS: Final = _EMPTY_KINDS | {tarfile.REGTYPE}
# Linux keeps attributes of users at nothing else (xattr(7)): whoever unpacks fails.
_OF_USERS: Final = frozenset((tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE))


class UnfitLayer(P2pdistError):
    """A layer that no index can be made of; the message says why."""


_Id = Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX_BYTES)]
_Time = Annotated[int, msgspec.Meta(gt=-(1 << 62), lt=1 << 62)]
_DeviceNumber = Annotated[int, msgspec.Meta(ge=0, lt=1 << 20)]


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the archive, in its order, as it was written there. What its types say holds for
    what was decoded; `check` says the rest, and all of it for one that was made."""

    kind: bytes
    """`tarfile.REGTYPE`, `DIRTYPE`, …; all that is regular is `REGTYPE`."""
    name: Annotated[bytes, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    """Permission bits, without the type."""
    uid: _Id
    gid: _Id
    size_bytes: _Size
    """Of its content, which begins at `offset` of the archive; 0 for what has none."""
    offset: _Size
    mtime_ns: _Time
    target: Annotated[bytes, msgspec.Meta(max_length=NAME_BYTES_MAX)] = b""
    """Where a link points."""
    device: tuple[_DeviceNumber, _DeviceNumber] = (0, 0)
    """Major and minor number."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    def check(self) -> None:
        """Raise UnfitLayer for what no file can be."""
        try:
            _decoder.decode(_encoder.encode(self))
        except (msgspec.ValidationError, OverflowError) as error:
            raise UnfitLayer(f"an entry {self.name[:80]!r} {_of_field(str(error))}") from None
        self.check_decoded()

    def check_decoded(self) -> None:
        """The same, of what the decoder let pass; a start asks 20,000 entries."""
        if self.kind not in _KINDS:
            raise UnfitLayer(f"an entry of kind {self.kind[:8]!r}: {self.name[:80]!r}")
        if b"\0" in self.name:
            raise UnfitLayer(f"an entry with a zero in its name: {self.name[:80]!r}")
        long = len(self.name) > PART_BYTES_MAX  # else no part is
        if long and any(len(part) > PART_BYTES_MAX for part in self.name.split(b"/")):
            raise UnfitLayer(f"an entry whose name no directory takes: {self.name[:80]!r}")
        if self.kind == tarfile.SYMTYPE and not self.target:
            raise UnfitLayer(f"a link to nothing: {self.name[:80]!r}")
        if b"\0" in self.target:
            raise UnfitLayer(f"a link with a zero in its target: {self.name[:80]!r}")
        if self.xattrs:
            self._check_xattrs()

    def _check_xattrs(self) -> None:
        if sum(len(key) + len(value) for key, value in self.xattrs) > XATTRS_BYTES_MAX:
            raise UnfitLayer("an entry with too many extended attributes")
        if any(not 0 < len(key) < 256 or b"\0" in key for key, _ in self.xattrs):
            raise UnfitLayer("an extended attribute with a name that Linux does not know")
        if self.kind not in _OF_USERS and any(key.startswith(b"user.") for key, _ in self.xattrs):
            raise UnfitLayer(f"an attribute of users at what they do not own: {self.name[:80]!r}")


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Member)


def _of_field(fault: str) -> str:
    """msgspec names a field of an array by its number: `… - at `$[3]``."""
    what, _, path = fault.partition(" - at `$[")
    number = path.partition("]")[0]
    name = Member.__struct_fields__[int(number)] if number.isdigit() else "number"
    return f"with an impossible {name}: {what}"


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the next entry."""

    records: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes | None = None
    target: bytes | None = None
    taken_bytes: int = 0


class TarReader:
    """Feed it all bytes in their order, then `finish`; both raise UnfitLayer."""

    def __init__(self) -> None:
        self._at = 0
        self._held = bytearray()
        """The beginning of a header, or of an extension."""
        self._need = BLOCK_BYTES
        self._skip = 0
        self._extension: bytes | None = None
        """The kind of the extended header whose content comes."""
        self._extension_bytes = 0
        self._next = _Extended()
        self._zero_blocks = 0
        self._ended = False

    def feed(self, data: memoryview) -> list[Member]:
        """Return the entries whose headers end in `data`."""
        found: list[Member] = []
        while data and not self._ended:
            if self._skip:
                step = min(self._skip, len(data))
                self._skip -= step
                self._at += step
                data = data[step:]
                continue
            step = min(self._need - len(self._held), len(data))
            self._held += data[:step]
            self._at += step
            data = data[step:]
            if len(self._held) == self._need:
                block, self._held = bytes(self._held), bytearray()
                self._take(block, found)
        return found

    def finish(self) -> None:
        """All of it came. An archive may end without its two empty blocks, but not inside of an
        entry."""
        if self._ended:
            return
        if self._held or self._skip or self._extension is not None or self._next != _Extended():
            raise UnfitLayer(f"the archive ends in the middle of an entry, at byte {self._at}")

    def _take(self, block: bytes, found: list[Member]) -> None:
        if self._extension is not None:
            self._take_extension(block)
        elif not any(block):
            self._zero_blocks += 1
            self._ended = self._zero_blocks == 2  # what follows is padding, as every reader says
        elif self._zero_blocks:
            raise UnfitLayer(f"an entry after an empty block, at byte {self._at}")
        else:
            self._take_header(block, found)

    def _take_header(self, block: bytes, found: list[Member]) -> None:
        try:
            header = header_of(block)
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            where = self._at - BLOCK_BYTES
            raise UnfitLayer(f"no header of an archive at byte {where}: {error}") from None
        if not 0 <= header.size_bytes <= SIZE_MAX_BYTES:
            raise UnfitLayer(f"an entry of {header.size_bytes} bytes at byte {self._at}")
        if header.kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            self._expect_extension(tarfile.XHDTYPE, header.size_bytes)
        elif header.kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            self._expect_extension(header.kind, header.size_bytes)
        elif header.kind == tarfile.XGLTYPE:  # containerd and Docker read nothing of it
            self._skip = _padded(header.size_bytes)
        else:
            extended, self._next = self._next, _Extended()
            found.append(self._member(header, extended))

    def _expect_extension(self, kind: bytes, size_bytes: int) -> None:
        self._next.taken_bytes += _padded(size_bytes)
        if self._next.taken_bytes > EXTENSION_BYTES_MAX:
            raise UnfitLayer(f"an extended header of {size_bytes} bytes at byte {self._at}")
        if size_bytes:
            self._extension, self._extension_bytes = kind, size_bytes
            self._need = _padded(size_bytes)

    def _take_extension(self, block: bytes) -> None:
        kind, content = self._extension, block[: self._extension_bytes]
        self._extension, self._need = None, BLOCK_BYTES
        if kind == tarfile.GNUTYPE_LONGNAME:
            self._next.name = content.partition(b"\0")[0]
        elif kind == tarfile.GNUTYPE_LONGLINK:
            self._next.target = content.partition(b"\0")[0]
        else:
            self._next.records.update(_pax_records(content))

    def _member(self, header: Header, extended: _Extended) -> Member:
        pax = extended.records
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            raise UnfitLayer("it has a sparse file")
        name = pax.get(b"path", extended.name)
        target = pax.get(b"linkpath", extended.target)
        size_bytes = _number(pax, b"size", header.size_bytes)
        member = Member(
            kind=tarfile.REGTYPE if header.kind in _REGULAR else header.kind,
            name=header.name if name is None else name,
            mode=header.mode & 0o7777,
            uid=_number(pax, b"uid", header.uid),
            gid=_number(pax, b"gid", header.gid),
            size_bytes=size_bytes,
            offset=self._at,
            mtime_ns=_time_ns(pax[b"mtime"]) if b"mtime" in pax else header.mtime_s * 10**9,
            target=header.target if target is None else target,
            device=header.device,
            xattrs=_xattrs(pax),
        )
        if header.kind in _EMPTY_KINDS:
            # Some writers say the size of a link's target there; no content follows.
            member = msgspec.structs.replace(member, size_bytes=0)
        elif member.kind != tarfile.REGTYPE:
            raise UnfitLayer(f"an entry of kind {header.kind!r}")
        member.check()
        # An old archive writes directories as files whose name ends in a slash.
        if member.kind == tarfile.REGTYPE and member.name.endswith(b"/"):
            member = msgspec.structs.replace(member, kind=tarfile.DIRTYPE)
        self._skip = _padded(member.size_bytes)
        return member


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """`length key=value\\n`, where the length counts all of the record (POSIX.1-2001, pax)."""
    records: dict[bytes, bytes] = {}
    at, end = 0, len(content.rstrip(b"\0"))
    while at < end:
        digits, space, _ = content[at : at + 16].partition(b" ")
        if not space or not digits.isdigit():
            raise UnfitLayer("an extended header without a length")
        stop = at + int(digits)
        key, equals, value = content[at + len(digits) + 1 : stop].partition(b"=")
        if stop > len(content) or not equals or not value.endswith(b"\n"):
            raise UnfitLayer("an extended header that is cut off")
        records[key] = value[:-1]
        at = stop
    return records


def _number(pax: dict[bytes, bytes], key: bytes, header: int) -> int:
    value = pax.get(key)
    if value is None:
        return header
    if not value.isdigit() or len(value) > 20:
        raise UnfitLayer(f"an extended header with {key.decode()} {value[:20]!r}")
    return int(value)


def _time_ns(value: bytes) -> int:
    try:
        seconds = Decimal(value[:40].decode("ascii"))
        return int((seconds * 10**9).to_integral_value(rounding="ROUND_FLOOR"))
    except (InvalidOperation, ValueError, OverflowError):
        raise UnfitLayer(f"an extended header with the time {value[:20]!r}") from None


def _xattrs(pax: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        sorted((key[len(_XATTR) :], value) for key, value in pax.items() if key.startswith(_XATTR))
    )
