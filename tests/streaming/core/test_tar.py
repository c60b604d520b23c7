"""What an archive holds, read as its bytes pass by."""

from __future__ import annotations

import io
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.streaming.core.tar import Member, TarReader, UnfitLayer
from tests.streaming.archives import archive, device, directory, file, hardlink, members_of, symlink

LONG = "d/" * 60 + "n" * 200


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 4096, 1 << 20])
def test_all_formats_are_read_as_the_standard_library_reads_them(
    form: int, piece_bytes: int
) -> None:
    name = LONG if form != tarfile.USTAR_FORMAT else "d/" * 60 + "n"
    data = archive(
        directory("etc", 0o1777),
        file("etc/passwd", b"root:x:0:0\n", mode=0o4755),
        file("empty"),
        file(name, b"x" * 1000),
        symlink("link", "etc/passwd"),
        hardlink("again", "etc/passwd"),
        device("null", 1, 3),
        form=form,
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [
            (i.type, i.name, i.mode, i.size, i.offset_data, i.linkname, (i.devmajor, i.devminor))
            for i in tar
        ]
    found = members_of(data, piece_bytes=piece_bytes)
    assert [
        (m.kind, m.name.decode(), m.mode, m.size_bytes, m.offset, m.target.decode(), m.device)
        for m in found
    ] == expected


def one(pax: dict[str, str]) -> Member:
    return members_of(archive(file("f", b"abc", pax=pax)))[0]


def test_extended_headers_say_what_a_header_has_no_room_for() -> None:
    member = one(
        {
            "path": "ü" * 100 + "/" + "ü" * 50,
            "mtime": "1700000000.123456789",
            "uid": "4000000000",
            "SCHILY.xattr.user.a": "b=c\nd",
            "SCHILY.xattr.security.capability": "\x01\x00\x02",
            "comment": "nobody reads this",
        }
    )
    assert member.name == ("ü" * 100 + "/" + "ü" * 50).encode()
    assert member.mtime_ns == 1_700_000_000_123_456_789
    assert member.uid == 4_000_000_000
    assert dict(member.xattrs) == {b"user.a": b"b=c\nd", b"security.capability": b"\x01\x00\x02"}


def test_a_time_before_1970_is_rounded_down() -> None:
    assert one({"mtime": "-1.5"}).mtime_ns == -1_500_000_000


def test_names_may_be_any_bytes() -> None:
    name = b"caf\xe9/\xff"
    data = archive(file(name.decode("utf-8", "surrogateescape")), form=tarfile.GNU_FORMAT)
    assert members_of(data)[0].name == name


def test_an_archive_may_end_without_its_empty_blocks() -> None:
    data = archive(file("f", b"x" * 512))
    assert [m.name for m in members_of(data[:1024])] == [b"f"]


def test_what_follows_the_end_is_nothing() -> None:
    assert len(members_of(archive(file("f")) + b"\xff" * 5000)) == 1


def header(kind: bytes, size: int, name: str = "f") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def symlink_with(xattr: str) -> tuple[tarfile.TarInfo, bytes]:
    info, content = symlink("s", "x")
    info.pax_headers = {f"SCHILY.xattr.{xattr}": "v"}
    return info, content


def test_a_symbolic_link_has_attributes_of_the_system() -> None:
    (found,) = members_of(archive(symlink_with("security.a")))
    assert found.xattrs == ((b"security.a", b"v"),)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (archive(file("f", b"x" * 600))[:1400], "ends in the middle"),
        (archive(file("f", b"x"))[:300], "ends in the middle"),
        (b"\xff" * 512, "no header"),
        (archive(file("f"))[:512] + b"\0" * 512 + header(tarfile.REGTYPE, 0), "after an empty"),
        (header(tarfile.GNUTYPE_SPARSE, 0), "kind"),
        (header(b"M", 0), "kind"),
        (header(tarfile.XHDTYPE, 2 << 20), "extended header of"),
        (header(tarfile.GNUTYPE_LONGNAME, 512), "ends in the middle"),
        (header(tarfile.GNUTYPE_LONGNAME, 5000) + b"n" * 5120 + header(tarfile.REGTYPE, 0), "name"),
        (archive(file("f", pax={"GNU.sparse.major": "1"})), "sparse"),
        (archive(file("f", pax={"size": "-1"})), "size"),
        (archive(file("f", pax={"mtime": "NaN"})), "time"),
        (archive(file("f", pax={"mtime": "1e999"})), "number"),
        (archive(file("f", pax={"uid": "99999999999"})), "uid|gid"),
        (archive(file("f", pax={"uid": "4294967295"})), "uid|gid"),
        (archive(file("f", pax={"gid": "4294967295"})), "uid|gid"),
        (archive(file("n" * 256)), "no directory takes"),
        (archive(file("d/" + "n" * 256 + "/f")), "no directory takes"),
        (archive(symlink("s", "")), "link to nothing"),
        (header(tarfile.CONTTYPE, 0), "kind"),
        (archive(symlink_with("user.a")), "attribute"),
        (archive(file("f", pax={"SCHILY.xattr." + "n" * 300: "v"})), "attribute"),
        (archive(file("f", pax={"SCHILY.xattr.user.a": "v" * 200_000})), "attributes"),
    ],
)
def test_what_is_not_understood_makes_the_layer_unfit(data: bytes, why: str) -> None:
    with pytest.raises(UnfitLayer, match=why):
        members_of(data)


@pytest.mark.parametrize("content", [b"0 a=b\n", b"99999 a=b\n", b"6 a=bc", b"x", b"5 ab\n"])
def test_extended_headers_that_are_none(content: bytes) -> None:
    data = header(tarfile.XHDTYPE, len(content)) + content.ljust(512, b"\0")
    with pytest.raises(UnfitLayer, match="extended header"):
        members_of(data + header(tarfile.REGTYPE, 0))


def test_extended_headers_of_one_entry_are_bounded_together() -> None:
    one = header(tarfile.XHDTYPE, 512) + b"512 k=".ljust(511, b"v") + b"\n"
    entry = header(tarfile.REGTYPE, 0)

    assert len(members_of(one * 1000 + entry + one * 1000 + entry)) == 2
    with pytest.raises(UnfitLayer, match="extended header of"):
        members_of(one * 3000 + entry)


def test_many_short_records_take_no_longer_than_a_long_one() -> None:
    """Each used to copy all that come after it: minutes for a blob of 100 kB."""
    content = b"6 a=b\n" * 170_000
    data = header(tarfile.XHDTYPE, len(content)) + content + bytes(-len(content) % 512)

    began_s = time.process_time()
    members_of(data + header(tarfile.REGTYPE, 0))

    assert time.process_time() - began_s < 1.0, "3 s where each record copies the rest"


@pytest.mark.parametrize("size", [(1 << 43) + 1, 1 << 62, -1])
def test_an_entry_that_claims_more_than_there_can_be(size: int) -> None:
    with pytest.raises(UnfitLayer, match="an entry of"):
        members_of(header(tarfile.REGTYPE, size))


def test_a_header_whose_sum_is_wrong() -> None:
    data = bytearray(archive(file("f", b"x")))
    data[0] ^= 1
    with pytest.raises(UnfitLayer, match="no header"):
        members_of(bytes(data))


@given(st.lists(st.binary(min_size=0, max_size=700), max_size=8), st.integers(0, 2000))
def test_any_bytes_are_entries_or_make_it_unfit(pieces: list[bytes], cut: int) -> None:
    whole = archive(directory("d"), file("d/f", b"x" * 700, pax={"mtime": "1.5"}))
    reader = TarReader()
    try:
        for piece in [whole[:cut], *pieces]:
            for member in reader.feed(memoryview(piece)):
                member.check()
        reader.finish()
    except UnfitLayer:
        pass
