"""The FUSE protocol of Linux in bytes: requests of the kernel read, answers to them written.

Pure. The structures are those of `include/uapi/linux/fuse.h`, in the byte order of the machine.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from p2pdist.streaming.ports import Attributes

MAJOR: Final = 7
MINOR: Final = 40
"""What is spoken here; 40 is the first with FUSE_HAS_RESEND (Linux 6.9)."""
MINOR_MIN: Final = 31
"""Linux 5.4: opens that need no message, cached symbolic links and directories."""
REQUEST_BYTES_MAX: Final = 8192
"""FUSE_MIN_READ_BUFFER: whatever is longer (a write, a big xattr) the kernel refuses itself."""
PAGE_BYTES: Final = 4096

# Of INIT. What an older kernel does not offer is left out of the answer.
ASYNC_READ: Final = 1 << 0
DO_READDIRPLUS: Final = 1 << 13
PARALLEL_DIROPS: Final = 1 << 18
MAX_PAGES: Final = 1 << 22
CACHE_SYMLINKS: Final = 1 << 23
INIT_EXT: Final = 1 << 30
HAS_RESEND: Final = 1 << 39
ALLOW_IDMAP: Final = 1 << 40
WANTED: Final = (
    ASYNC_READ  # a reader that is killed meanwhile does not have to wait for the answer
    | DO_READDIRPLUS  # always: overlayfs reads all names of a directory before it looks one up
    | PARALLEL_DIROPS
    | MAX_PAGES
    | CACHE_SYMLINKS
    | INIT_EXT
    | HAS_RESEND
    | ALLOW_IDMAP  # pods with a user namespace of their own mount layers with shifted ids
)

RESEND: Final = 7
"""FUSE_NOTIFY_RESEND: send again what a worker before this one had taken and not answered."""

KEEP_CACHE: Final = 1 << 1
CACHE_DIR: Final = 1 << 3

# Nothing here ever changes; the kernel cuts it down to what its clock can hold.
FOREVER_S: Final = 1 << 31
READ_BYTES_MAX: Final = 1 << 24
"""More than any kernel asks for at a time: 1 MiB by default, what an administrator allows else."""
_NAME_BYTES_MAX: Final = 4096
_UNKNOWN_INODE: Final = 0xFFFF_FFFF
"""For `..`, whose number nobody asks: as libfuse has it."""
_NS_PER_S: Final = 1_000_000_000

_HEAD: Final = struct.Struct("=IIQQIIIHH")
_INIT_IN: Final = struct.Struct("=IIII")
_INIT_IN_EXT: Final = struct.Struct("=I")
_READ_IN: Final = struct.Struct("=QQII")
_XATTR_IN: Final = struct.Struct("=II")
_REPLY: Final = struct.Struct("=IiQ")
_INIT_OUT: Final = struct.Struct("=IIIIHHIIHHI28x")
_ATTR: Final = struct.Struct("=QQQqqqIIIIIIIIII")
_ENTRY_OUT: Final = struct.Struct("=QQQQII")
_ATTR_OUT: Final = struct.Struct("=QII")
_OPEN_OUT: Final = struct.Struct("=QII")
_DIRENT: Final = struct.Struct("=QQII")
_XATTR_OUT: Final = struct.Struct("=II")
_STATFS_OUT: Final = struct.Struct("=QQQQQIIII24x")
_ENTRY: Final = struct.Struct(_ENTRY_OUT.format + _ATTR.format.removeprefix("="))
_NO_ENTRY: Final = bytes(_ENTRY.size)
_PADDINGS: Final = tuple(bytes(-length % 8) for length in range(8))
_DIRECTORY: Final = 0o040000 >> 12


class MalformedRequest(Exception):
    """What was read is no request; `unique` is 0 where not even that could be told."""

    def __init__(self, unique: int, why: str) -> None:
        super().__init__(why)
        self.unique = unique


@dataclass(slots=True)
class Init:
    unique: int
    major: int
    minor: int
    max_readahead: int
    flags: int


@dataclass(slots=True)
class Lookup:
    unique: int
    node: int
    name: bytes


@dataclass(slots=True)
class GetAttributes:
    unique: int
    node: int


@dataclass(slots=True)
class ReadLink:
    unique: int
    node: int


@dataclass(slots=True)
class Read:
    unique: int
    node: int
    offset: int
    size: int


@dataclass(slots=True)
class OpenDirectory:
    unique: int
    node: int


@dataclass(slots=True)
class ReadDirectory:
    """`offset` is the number of entries that the kernel has; `plus`: attributes are wanted too."""

    unique: int
    node: int
    offset: int
    size: int
    plus: bool


@dataclass(slots=True)
class GetXattr:
    """`size` 0 asks how long the value is."""

    unique: int
    node: int
    size: int
    name: bytes


@dataclass(slots=True)
class ListXattrs:
    unique: int
    node: int
    size: int


@dataclass(slots=True)
class StatFs:
    unique: int


@dataclass(slots=True)
class Settled:
    """The same for every tree: answered with `error`, 0 for success."""

    unique: int
    error: int


@dataclass(slots=True)
class Unanswered:
    """Nothing is to be said or done: a FORGET, as nodes are numbers that nobody has to keep."""

    unique: int


Request = (
    Init
    | Lookup
    | GetAttributes
    | ReadLink
    | Read
    | OpenDirectory
    | ReadDirectory
    | GetXattr
    | ListXattrs
    | StatFs
    | Settled
    | Unanswered
)

# ENOSYS is "do it yourself, and never ask again". The kernel then opens files with KEEP_CACHE and
# directories with CACHE_DIR | KEEP_CACHE, seeks and checks access by attributes.
# INTERRUPT: a read of a file in an unpacked image never ends with EINTR, so no read does here.
_LEFT_TO_THE_KERNEL: Final = {
    14: "OPEN",
    20: "FSYNC",
    25: "FLUSH",
    30: "FSYNCDIR",
    31: "GETLK",
    32: "SETLK",
    33: "SETLKW",
    34: "ACCESS",
    36: "INTERRUPT",
    37: "BMAP",
    40: "POLL",
    46: "LSEEK",
    50: "SYNCFS",
    52: "STATX",
}
_WRITING: Final = {
    4: "SETATTR",
    6: "SYMLINK",
    8: "MKNOD",
    9: "MKDIR",
    10: "UNLINK",
    11: "RMDIR",
    12: "RENAME",
    13: "LINK",
    16: "WRITE",
    21: "SETXATTR",
    24: "REMOVEXATTR",
    35: "CREATE",
    43: "FALLOCATE",
    45: "RENAME2",
    47: "COPY_FILE_RANGE",
    51: "TMPFILE",
}
_DONE: Final = {18: "RELEASE", 29: "RELEASEDIR", 38: "DESTROY"}
_SETTLED: Final = {
    **dict.fromkeys(_LEFT_TO_THE_KERNEL, errno.ENOSYS),
    **dict.fromkeys(_WRITING, errno.EROFS),
    **dict.fromkeys(_DONE, 0),
    39: errno.ENOTTY,  # IOCTL
}


def decode(message: bytes) -> Request:
    """Return what the kernel asks; raise MalformedRequest."""
    if not _HEAD.size <= len(message) <= REQUEST_BYTES_MAX:
        raise MalformedRequest(0, f"a request of {len(message)} bytes")
    length, opcode, unique, node, *_ = _HEAD.unpack_from(message)
    if length != len(message):
        raise MalformedRequest(unique, f"{length} bytes announced, {len(message)} came")
    if (read := _DECODERS.get(opcode)) is not None:
        return read(unique, node, message)
    return Settled(unique, _SETTLED.get(opcode, errno.ENOSYS))


def _init(unique: int, _node: int, message: bytes) -> Request:
    major, minor, max_readahead, flags = _fields(_INIT_IN, unique, message)
    if flags & INIT_EXT:
        (more,) = _fields(_INIT_IN_EXT, unique, message, _INIT_IN.size)
        flags |= more << 32
    return Init(unique, major, minor, max_readahead, flags)


def _lookup(unique: int, node: int, message: bytes) -> Request:
    return Lookup(unique, node, _name(unique, message, _HEAD.size))


def _read(unique: int, node: int, message: bytes) -> Request:
    return Read(unique, node, *_place(unique, message))


def _read_directory(unique: int, node: int, message: bytes) -> Request:
    return ReadDirectory(unique, node, *_place(unique, message), plus=False)


def _read_directory_plus(unique: int, node: int, message: bytes) -> Request:
    return ReadDirectory(unique, node, *_place(unique, message), plus=True)


def _place(unique: int, message: bytes) -> tuple[int, int]:
    """Offset and size."""
    _handle, offset, size, _flags = _fields(_READ_IN, unique, message)
    if size > READ_BYTES_MAX:
        raise MalformedRequest(unique, f"{size} bytes are asked for")
    return offset, size


def _get_xattr(unique: int, node: int, message: bytes) -> Request:
    size, _padding = _fields(_XATTR_IN, unique, message)
    return GetXattr(unique, node, size, _name(unique, message, _HEAD.size + _XATTR_IN.size))


def _list_xattrs(unique: int, node: int, message: bytes) -> Request:
    size, _padding = _fields(_XATTR_IN, unique, message)
    return ListXattrs(unique, node, size)


_DECODERS: Final[dict[int, Callable[[int, int, bytes], Request]]] = {
    1: _lookup,
    2: lambda unique, _node, _message: Unanswered(unique),  # FORGET
    3: lambda unique, node, _message: GetAttributes(unique, node),
    5: lambda unique, node, _message: ReadLink(unique, node),
    15: _read,
    17: lambda unique, _node, _message: StatFs(unique),
    22: _get_xattr,
    23: _list_xattrs,
    26: _init,
    27: lambda unique, node, _message: OpenDirectory(unique, node),
    28: _read_directory,
    42: lambda unique, _node, _message: Unanswered(unique),  # BATCH_FORGET
    44: _read_directory_plus,
}


def _fields(layout: struct.Struct, unique: int, message: bytes, offset: int = 0) -> tuple[int, ...]:
    try:
        return layout.unpack_from(message, _HEAD.size + offset)
    except struct.error:
        raise MalformedRequest(unique, "a request that is cut off") from None


def _name(unique: int, message: bytes, start: int) -> bytes:
    end = message.find(b"\0", start)
    if not start < end <= start + _NAME_BYTES_MAX:
        raise MalformedRequest(unique, "a name that is empty, too long or does not end")
    return message[start:end]


# --- answers -------------------------------------------------------------------------------------


def head(unique: int, payload_bytes: int) -> bytes:
    """What goes before a payload, in the same write."""
    return _REPLY.pack(_REPLY.size + payload_bytes, 0, unique)


def status(unique: int, error: int) -> bytes:
    """A whole answer: `error` is an errno, 0 for success with nothing to say."""
    return _REPLY.pack(_REPLY.size, -error, unique)


def resend() -> bytes:
    """A whole message, which answers nothing."""
    return _REPLY.pack(_REPLY.size, RESEND, 0)


def init(asked: Init, *, max_readahead: int, max_pages: int, background_max: int) -> bytes:
    """Answer INIT; a kernel with a newer major asks again in our terms."""
    flags = asked.flags & WANTED
    return _INIT_OUT.pack(
        MAJOR,
        min(MINOR, asked.minor) if asked.major == MAJOR else MINOR,
        min(max_readahead, asked.max_readahead),
        flags & 0xFFFF_FFFF,
        background_max,
        background_max,
        PAGE_BYTES,  # the least that a kernel takes for the longest write
        1,  # times are kept to the nanosecond
        max_pages,
        0,
        flags >> 32,
    )


def attributes(told: Attributes) -> bytes:
    return _ATTR_OUT.pack(FOREVER_S, 0, 0) + _ATTR.pack(*_attributes(told))


def entry(told: Attributes, name_valid_s: int = FOREVER_S) -> bytes:
    """What LOOKUP finds."""
    return _ENTRY.pack(told.node, 0, name_valid_s, FOREVER_S, 0, 0, *_attributes(told))


def no_entry() -> bytes:
    """There is no such name, and never will be: not ENOENT, which the kernel would not keep."""
    return _ENTRY_OUT.pack(0, 0, FOREVER_S, FOREVER_S, 0, 0) + bytes(_ATTR.size)


def _attributes(told: Attributes) -> tuple[int, ...]:
    """The fields of `_ATTR`."""
    seconds, nanoseconds = divmod(told.mtime_ns, _NS_PER_S)
    size_bytes = told.size_bytes
    return (
        told.node,
        size_bytes,
        (size_bytes + 511) // 512,
        seconds,
        seconds,
        seconds,
        nanoseconds,
        nanoseconds,
        nanoseconds,
        told.mode,
        told.links,
        told.uid,
        told.gid,
        told.device & 0xFFFF_FFFF,  # as mknod(2) cuts it
        PAGE_BYTES,
        0,
    )


def directory_opened(flags: int) -> bytes:
    return _OPEN_OUT.pack(0, flags, 0)


def directory(
    asked: ReadDirectory,
    children: Sequence[tuple[bytes, int]],
    tell: Callable[[int], Attributes | None],
    name_valid_s: int = FOREVER_S,
) -> bytes:
    """Return the entries that fit from `asked.offset` on; none at the end.

    `tell` may know nothing of an entry: its LOOKUP will say why. The kernel keeps what comes with
    READDIRPLUS as it keeps what a LOOKUP found, except where there is no entry beside the name.
    """
    parts: list[bytes] = []
    left = asked.size
    for place in range(asked.offset, len(children) + 2):
        if place < 2:
            name, child = ((b".", asked.node), (b"..", _UNKNOWN_INODE))[place]
            kind, beside = _DIRECTORY, _NO_ENTRY
        else:
            name, child = children[place - 2]
            told = tell(child)
            kind = told.mode >> 12 if told else 0
            beside = entry(told, name_valid_s) if told and asked.plus else _NO_ENTRY
        length = len(name)
        record = _DIRENT.pack(child, place + 1, length, kind) + name + _PADDINGS[length % 8]
        if asked.plus:
            record = beside + record
        left -= len(record)
        if left < 0:
            break
        parts.append(record)
    return b"".join(parts)


def xattr(value: bytes, size: int) -> bytes:
    """The value, or its length where `size` is 0; raise ERANGE where it is longer than `size`."""
    if size == 0:
        return _XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, "longer than the reader's buffer")
    return value


def xattr_names(names: Iterable[bytes], size: int) -> bytes:
    return xattr(b"".join(name + b"\0" for name in names), size)


def stat_fs() -> bytes:
    """No room: as of every image that is read-only."""
    return _STATFS_OUT.pack(0, 0, 0, 0, 0, PAGE_BYTES, 255, PAGE_BYTES, 0)
