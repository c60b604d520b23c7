"""What the kernel's bytes mean, and ours to it."""

from __future__ import annotations

import errno
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.streaming.fuse import wire
from p2pdist.streaming.ports import Attributes
from tests.fakes import fuse_kernel as kernel

OPCODES = st.one_of(st.integers(0, 60), st.integers(0, 2**32 - 1))
NUMBERS = st.integers(0, 2**64 - 1)


@given(OPCODES, NUMBERS, NUMBERS, st.binary(max_size=200))
def test_any_payload_is_a_request_or_malformed(
    opcode: int, unique: int, node: int, payload: bytes
) -> None:
    assert _unique_of(kernel.request(opcode, unique, node, payload)) == unique


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_malformed(message: bytes) -> None:
    with pytest.raises(wire.MalformedRequest):
        wire.decode(message + b"\0")  # its length says something else, or is too short


def test_what_is_longer_than_any_request_is_not_looked_at() -> None:
    with pytest.raises(wire.MalformedRequest):
        wire.decode(kernel.request(kernel.GETATTR, 2, payload=bytes(wire.REQUEST_BYTES_MAX)))


@given(NUMBERS, st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name))
def test_names_are_bytes(node: int, name: bytes) -> None:
    asked = wire.decode(kernel.request(kernel.LOOKUP, 2, node, name + b"\0"))

    assert asked == wire.Lookup(2, node, name)


@pytest.mark.parametrize("payload", [b"", b"\0", b"never ends", b"n" * 5000 + b"\0"])
def test_a_name_that_is_none(payload: bytes) -> None:
    with pytest.raises(wire.MalformedRequest):
        wire.decode(kernel.request(kernel.LOOKUP, 2, payload=payload))


@given(NUMBERS, NUMBERS, st.integers(0, wire.READ_BYTES_MAX))
def test_reads(node: int, offset: int, size: int) -> None:
    payload = kernel.read_payload(offset, size)

    assert wire.decode(kernel.request(kernel.READ, 2, node, payload)) == wire.Read(
        2, node, offset, size
    )
    assert wire.decode(kernel.request(kernel.READDIRPLUS, 2, node, payload)) == wire.ReadDirectory(
        2, node, offset, size, plus=True
    )


@pytest.mark.parametrize("opcode", [kernel.READ, kernel.READDIR, kernel.READDIRPLUS])
def test_more_than_any_kernel_reads_at_once(opcode: int) -> None:
    with pytest.raises(wire.MalformedRequest):
        wire.decode(
            kernel.request(opcode, 2, payload=kernel.read_payload(0, wire.READ_BYTES_MAX + 1))
        )


def test_xattrs_are_asked_by_name_and_size() -> None:
    payload = struct.pack("=II", 20, 0) + b"security.capability\0"

    asked = wire.decode(kernel.request(kernel.GETXATTR, 2, 7, payload))

    assert asked == wire.GetXattr(2, 7, 20, b"security.capability")


@pytest.mark.parametrize("opcode", [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51])
def test_whatever_writes_finds_a_read_only_file_system(opcode: int) -> None:
    assert wire.decode(kernel.request(opcode, 2)) == wire.Settled(2, errno.EROFS)


@pytest.mark.parametrize("opcode", [kernel.GETXATTR, kernel.LISTXATTR])
def test_xattrs_are_never_left_to_the_kernel(opcode: int) -> None:
    """It would stop asking: opaque directories and capabilities would be gone for good."""
    asked = wire.decode(kernel.request(opcode, 2, payload=bytes(8) + b"user.x\0"))

    assert not isinstance(asked, wire.Settled)


@pytest.mark.parametrize("opcode", [kernel.OPEN, kernel.INTERRUPT, 999])
def test_what_the_kernel_does_itself(opcode: int) -> None:
    assert wire.decode(kernel.request(opcode, 2)) == wire.Settled(2, errno.ENOSYS)


def test_forgetting_needs_no_answer() -> None:
    assert isinstance(wire.decode(kernel.request(kernel.FORGET, 2)), wire.Unanswered)
    assert isinstance(wire.decode(kernel.request(kernel.BATCH_FORGET, 2)), wire.Unanswered)


def _init(flags: int, *, minor: int = 45, readahead: int = 1 << 20) -> wire.Init:
    low, high = flags & 0xFFFF_FFFF, flags >> 32
    payload = struct.pack("=IIIII44x", 7, minor, readahead, low, high)
    asked = wire.decode(kernel.request(kernel.INIT, 2, 0, payload))
    assert isinstance(asked, wire.Init)
    return asked


def _init_answer(asked: wire.Init) -> tuple[int, ...]:
    answer = wire.init(asked, max_readahead=1 << 19, max_pages=256, background_max=64)
    assert len(answer) == 64
    return struct.unpack("=IIIIHHIIHHI28x", answer)


def test_init_takes_what_is_offered_and_wanted() -> None:
    major, minor, readahead, low, background, _, _, granularity, pages, _, high = _init_answer(
        _init(2**64 - 1)
    )

    assert (major, minor, readahead) == (7, wire.MINOR, 1 << 19)
    assert low | high << 32 == wire.WANTED
    assert (background, granularity, pages) == (64, 1, 256)


def test_init_asks_for_nothing_that_an_older_kernel_does_not_know() -> None:
    offered = wire.ASYNC_READ | wire.MAX_PAGES | 1 << 4

    _, minor, readahead, low, *_, high = _init_answer(_init(offered, minor=31, readahead=4096))

    assert (minor, readahead, low, high) == (31, 4096, wire.ASYNC_READ | wire.MAX_PAGES, 0)


def test_attributes_as_the_kernel_reads_them() -> None:
    told = Attributes(
        node=2**40 + 3,
        mode=stat.S_IFCHR | 0o4711,
        uid=4_000_000_000,
        gid=7,
        size_bytes=2**33 + 1,
        mtime_ns=-1_500_000_001,
        links=3,
        device=0x10345,
    )

    seen = kernel.attr(wire.attributes(told)[16:])

    assert seen == kernel.Attr(
        node=2**40 + 3,
        size=2**33 + 1,
        blocks=2**24 + 1,
        mtime=(-2, 499_999_999),
        mode=stat.S_IFCHR | 0o4711,
        links=3,
        uid=4_000_000_000,
        gid=7,
        device=0x10345,
    )
    assert kernel.attr(wire.entry(told)[40:]) == seen


def test_names_that_are_not_there_are_remembered_by_the_kernel() -> None:
    node, _, valid_s, *_ = struct.unpack_from("=QQQQII", wire.no_entry())

    assert node == 0
    assert valid_s > 10**9


def test_xattr_values_and_their_lengths() -> None:
    assert struct.unpack("=II", wire.xattr(b"abc", 0)) == (3, 0)
    assert wire.xattr(b"abc", 3) == b"abc"
    with pytest.raises(OSError, match="longer") as refused:
        wire.xattr(b"abc", 2)
    assert refused.value.errno == errno.ERANGE


@given(
    st.lists(st.binary(min_size=1, max_size=255), max_size=40),
    st.integers(400, 4096),
    st.booleans(),
)
def test_a_directory_is_read_in_pieces_that_fit(names: list[bytes], size: int, plus: bool) -> None:
    children = [(name, 10 + i) for i, name in enumerate(names)]
    found: list[kernel.DirectoryEntry] = []

    while True:
        asked = wire.ReadDirectory(2, 5, len(found), size, plus)
        piece = wire.directory(asked, children, _regular)
        assert len(piece) <= size
        if not piece:
            break
        found += kernel.entries(piece, plus=plus)

    assert [(entry.name, entry.node) for entry in found[2:]] == children
    assert [entry.name for entry in found[:2]] == [b".", b".."]
    assert [entry.next_offset for entry in found] == list(range(1, len(found) + 1))
    assert all(entry.kind == stat.S_IFREG >> 12 for entry in found[2:])
    assert all((entry.looked_up is not None) == plus for entry in found[2:])
    assert not any(entry.looked_up for entry in found[:2])


def test_an_entry_of_which_nothing_is_known_is_named_all_the_same() -> None:
    piece = wire.directory(
        wire.ReadDirectory(2, 1, 2, 4096, plus=True), [(b"name", 9)], lambda node: None
    )

    assert kernel.entries(piece, plus=True) == [kernel.DirectoryEntry(9, 0, b"name", 3, None)]


def _unique_of(message: bytes) -> int:
    try:
        return wire.decode(message).unique
    except wire.MalformedRequest as fault:
        return fault.unique


def _regular(node: int) -> Attributes:
    return Attributes(node, stat.S_IFREG | 0o644, 0, 0, 1, 0, 1)
