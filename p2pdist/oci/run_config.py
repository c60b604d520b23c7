"""What a container of an image runs: of its config (OCI image specification, config.md), and of
whoever starts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pdist.oci.image_config import CONFIG_BYTES_MAX

PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WORDS_MAX: Final = 4096

_Text = Annotated[str, msgspec.Meta(max_length=1 << 17)]
"""As much as Linux takes for an argument (MAX_ARG_STRLEN)."""
_Words = Annotated[list[_Text], msgspec.Meta(max_length=_WORDS_MAX)]


class _Settings(msgspec.Struct, frozen=True):
    entrypoint: _Words | None = msgspec.field(default=None, name="Entrypoint")
    command: _Words | None = msgspec.field(default=None, name="Cmd")
    environment: _Words | None = msgspec.field(default=None, name="Env")
    directory: _Text | None = msgspec.field(default=None, name="WorkingDir")
    user: _Text | None = msgspec.field(default=None, name="User")


class _Config(msgspec.Struct, frozen=True):
    config: _Settings | None = None


_decoder: Final = msgspec.json.Decoder(_Config)


@dataclass(frozen=True, slots=True)
class RunConfig:
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """`NAME=value` each."""
    directory: str = "/"
    user: str = ""
    """`user`, `uid`, `user:group`, …; empty: root."""

    def arguments(self, command: Sequence[str]) -> list[str]:
        """What is run; `command` stands in the place of the image's own. Raises ValueError for
        nothing."""
        words = [*self.entrypoint, *(command or self.command)]
        if not words or not words[0]:
            raise ValueError("the image names no command, and none is given")
        return words


def run_config(body: bytes) -> RunConfig:
    """Raises ValueError for what is no config of an image."""
    if len(body) > CONFIG_BYTES_MAX:
        raise ValueError(f"a config of {len(body)} bytes")
    try:
        found = _decoder.decode(body).config or _Settings()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it says nothing of what to run: {error}") from None
    texts = [*(found.entrypoint or ()), *(found.command or ()), *(found.environment or ())]
    if any("\0" in text for text in (*texts, found.directory or "", found.user or "")):
        raise ValueError("it has a NUL in what to run")
    return RunConfig(
        tuple(found.entrypoint or ()),
        tuple(found.command or ()),
        tuple(text for text in found.environment or () if "=" in text),
        found.directory or "/",
        found.user or "",
    )


def environment(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """`own`: of the image; `given` counts where both name something."""
    merged = {text.partition("=")[0]: text for text in (PATH, *own, *given)}
    return list(merged.values())


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Further ones that name the user as a member."""
    home: str = "/"


def find_user(text: str, passwd: bytes, group: bytes) -> User:
    """`text` as `User` of a config; the others: the image's `/etc/passwd` and `/etc/group`, empty
    where it has none. Raises ValueError for a name that they do not have."""
    who, _, what = (text or "0").partition(":")
    entry = _entry(passwd, who, fields=7)
    if entry is None and not _is_id(who):
        raise ValueError(f"the image has no user {who!r}")
    uid = int(entry[2]) if entry is not None else int(who)
    gid = int(entry[3]) if entry is not None else 0
    groups: tuple[int, ...] = ()
    if what:
        named = _entry(group, what, fields=4)
        if named is None and not _is_id(what):
            raise ValueError(f"the image has no group {what!r}")
        gid = int(named[2]) if named is not None else int(what)
    elif entry is not None:
        groups = tuple(_groups_of(group, entry[0]))
    return User(uid, gid, groups, (entry[5] if entry is not None else "") or "/")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 32


def _entry(file: bytes, who: str, *, fields: int) -> list[str] | None:
    """The line of a name, else of a number."""
    lines = _lines(file, fields)
    by_name = [line for line in lines if line[0] == who]
    by_number = [line for line in lines if _is_id(who) and int(line[2]) == int(who)]
    return next(iter(by_name + by_number), None)


def _groups_of(group: bytes, user: str) -> list[int]:
    return [int(line[2]) for line in _lines(group, 4) if user in line[3].split(",")]


def _lines(file: bytes, fields: int) -> list[list[str]]:
    """Those that are well formed: whoever reads such files passes over the others."""
    parts = [line.split(":") for line in file.decode("utf-8", "replace").splitlines()]
    numbers = slice(2, 4) if fields == 7 else slice(2, 3)
    return [p for p in parts if len(p) == fields and all(_is_id(n) for n in p[numbers])]
