"""An image of all that an archive may say and still be understood, and how readers differ."""

from __future__ import annotations

import tarfile
from typing import Final

from tests.e2e.streaming.listing import Excuse
from tests.e2e.streaming.unpackers import Layer, unnamed_directories
from tests.fakes.pulling import random_bytes
from tests.streaming.archives import (
    archive,
    device,
    directory,
    file,
    gzipped,
    hardlink,
    name_of,
    symlink,
)

CAPABILITY: Final = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14
DEEP: Final = "/".join(["deep" * 20] * 40)
PING: Final = file(
    "bits/ping", b"c", mode=0o4755, pax={"SCHILY.xattr.security.capability": CAPABILITY}
)


def _but(member: tuple[tarfile.TarInfo, bytes], **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    for name, value in fields.items():
        setattr(member[0], name, value)
    return member


def _xattr(name: str, key: str, value: str = "v") -> tuple[tarfile.TarInfo, bytes]:
    return file(name, pax={f"SCHILY.xattr.{key}": value})


BASE: Final = archive(
    directory("./", 0o711),
    directory("etc", 0o751),
    file("etc/passwd", b"root", mode=0o640, pax={"mtime": "1700000000.123456789"}),
    file("etc/old", b"old"),
    file("noise", random_bytes(2 << 20, 5)),
    directory("opaque", 0o700),
    file("opaque/old"),
    directory("kept", 0o701),
    file("kept/low"),
    directory("was"),
    file("was/f"),
    directory("reborn"),
    file("reborn/below"),
    file("unnamed/f"),
    symlink("lib", "usr/lib"),
    directory("usr/lib"),
    file("typed", b"file"),
    file("linked-over", b"low"),
    device("null", 1, 3),
)
TOP: Final = archive(
    file("/abs/name", b"abs"),
    file("./dot//./name", b"dot"),
    file("etc/.wh.old"),
    file("kept/high"),
    directory("opaque", 0o705),
    file("opaque/.wh..wh..opq"),
    file("opaque/new"),
    file(".wh.null"),
    file(".wh.never-there"),
    file(".wh.reborn"),
    directory("reborn", 0o750),
    file("reborn/above"),
    file("was/f", b"y"),
    file("was", b"file now"),
    file("twice", b"first"),
    hardlink("early", "twice"),
    file("twice", b"second, and longer"),
    directory("d", 0o700),
    file("d/x"),
    _but(directory("d", 0o705), uid=5, mtime=77),
    file("typed"),
    directory("typed", 0o700),
    file("typed/in", b"in"),
    symlink("lib", "usr/lib64"),
    file("n" * 255, b"long"),
    file(f"{DEEP}/f", b"deep"),
    file("caf\udce9/\udcff\n", b"not utf-8"),
    file("times/before", pax={"mtime": "-1.5"}),
    file("times/fine", pax={"mtime": "1.000000001"}),
    file("times/2100", pax={"mtime": "4102444800.5"}),
    file("ids/large", pax={"uid": "3000000000", "gid": "4294967294"}),
    file("bits/suid", b"s", mode=0o6755),
    directory("bits/sticky", 0o1777),
    PING,
    name_of(PING, "bits/ping2"),
    file("bits/renounced", mode=0o4755, pax={"SCHILY.xattr.security.capability": CAPABILITY}),
    hardlink("bits/renounced2", "bits/renounced"),
    _xattr("x/user", "user.a", "b=c\n"),
    _xattr("x/long", "user.b", "v" * 3000),
    _xattr("x/trusted", "trusted.a"),
    _xattr("x/security", "security.foo"),
    _xattr("x/redirect", "trusted.overlay.redirect", "/etc"),
    _xattr("x/user-overlay", "user.overlay.opaque", "y"),
    _xattr("x/unknown", "foo.bar"),
    _but(directory("x/d"), pax_headers={"SCHILY.xattr.user.first": "1"}),
    _but(directory("x/d"), pax_headers={"SCHILY.xattr.user.second": "2"}),
    device("dev/null", 1, 3),
    _but(device("dev/disk", 259, 300_000), type=tarfile.BLKTYPE),
    _but(device("dev/pipe", 0, 0), type=tarfile.FIFOTYPE),
    hardlink("dev/null2", "dev/null"),
    symlink("climbs", "../../../etc/passwd"),
    symlink("far", "x" * 4000),
    hardlink("climbs2", "climbs"),
    file("file-then-link", b"one"),
    hardlink("linked-over", "file-then-link"),
)
GNU: Final = archive(
    file("gnu/" + "y" * 200 + "/" + "z" * 250, b"gnu"),
    symlink("gnu/link", "t" * 300),
    _but(file("gnu/ids"), uid=3_000_000, gid=(1 << 31) + 5),
    _but(file("gnu/old"), mtime=-5),
    form=tarfile.GNU_FORMAT,
)
USTAR: Final = archive(
    file("ustar/" + "y" * 90 + "/" + "z" * 90, b"ustar"), form=tarfile.USTAR_FORMAT
)
LAYERS: Final = [Layer(plain, gzipped(plain)) for plain in (BASE, TOP, GNU, USTAR)]


def _excuse(why: str, fields: str, *paths: str | bytes) -> Excuse:
    raw = frozenset(path.encode() if isinstance(path, str) else path for path in paths)
    return Excuse(why, frozenset(fields.split()), raw)


_UNNAMED: Final = _excuse(
    "a directory that its topmost layer does not name has there the time of unpacking",
    "mtime_ns",
    *unnamed_directories(LAYERS),
)
CONTAINERD: Final = (
    _UNNAMED,
    _excuse("containerd lets no layer say what the root is", "mode mtime_ns", "/"),
    _excuse("containerd knows no time before 1970", "mtime_ns", "/times/before", "/gnu/old"),
    _excuse(
        "containerd forgets a whiteout whose directory comes after it in the same layer, against "
        "the specification of images",
        "there",
        "/reborn/below",
    ),
)
UMOCI: Final = (
    _UNNAMED,
    _excuse("umoci sets attributes that only root may see", "xattrs", "/x/trusted"),
    _excuse("umoci takes attributes from a directory that is named again", "xattrs", "/x/d"),
    _excuse(
        "umoci does not heed what the entry of a hard link says of its file; containerd, Docker "
        "and Podman do",
        "mode mtime_ns xattrs",
        "/early",
        "/bits/renounced",
        "/bits/renounced2",
        "/dev/null",
        "/dev/null2",
        "/linked-over",
        "/file-then-link",
    ),
)
