"""Accounts in the files of container tools: Docker's `config.json`, containers' `auth.json`.

Sources: docker/cli, "docker login", "Credential store" and "Credential helpers" (credential helper
protocol of docker/docker-credential-helpers); containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec

AUTH_FILE_BYTES_MAX: Final = 1 << 20
HELPER_ANSWER_BYTES_MAX: Final = 64 * 1024
# How tools call Docker Hub in these files.
HUB_KEY: Final = "https://index.docker.io/v1/"
# Docker's word for "the password is a refresh token".
REFRESH_USER: Final = "<token>"

_HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Text = Annotated[str, msgspec.Meta(max_length=32 * 1024)]
_T = TypeVar("_T")


class Account(NamedTuple):
    """What a registry or its token service wants to know."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Account({self.username!r}, ...)"


class Helper(NamedTuple):
    """Ask the program `docker-credential-NAME` for the account of `key`."""

    name: str
    key: str


class _Entry(msgspec.Struct):
    auth: _Text | None = None
    username: _Text | None = None
    password: _Text | None = None
    identitytoken: _Text | None = None


class _File(msgspec.Struct, rename={"creds_store": "credsStore", "cred_helpers": "credHelpers"}):
    auths: dict[str, _Entry] | None = None
    creds_store: _Text | None = None
    cred_helpers: dict[str, _Text] | None = None


class _Answer(msgspec.Struct, rename="pascal"):
    username: _Text = ""
    secret: _Text = ""


def account_in(body: bytes, host: str) -> Account | Helper:
    """Return what the file `body` says of the registry `host`, its port included.

    A helper for this registry comes first, then the store for all, then the entry itself, as Docker
    looks. Raises ValueError, which never quotes a secret, where the file is none or has no account.
    """
    try:
        file = msgspec.json.decode(body, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is no file of registry accounts (JSON with `auths`)") from None
    if name := _of(file.cred_helpers or {}, host):
        return helper(name, host)
    if file.creds_store:
        return helper(file.creds_store, host)
    entry = _of(file.auths or {}, host)
    if entry is None:
        raise ValueError(f"has no account for {host}")
    return _account(entry, host)


def helper(name: str, host: str) -> Helper:
    """Check the name of a helper; raise ValueError for one that is no part of a file name."""
    if not _HELPER_NAME.fullmatch(name):
        raise ValueError("names a credential helper that cannot be one")
    return Helper(name, HUB_KEY if host in _HUB_NAMES else host)


def account_told(answer: bytes) -> Account:
    """Read the answer of a helper; raise ValueError, without quoting it, where it is none."""
    try:
        told = msgspec.json.decode(answer, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("did not answer with an account") from None
    if not told.username or not told.secret:
        raise ValueError("knows no account")
    return Account(told.username, told.secret)


def _of(entries: dict[str, _T], host: str) -> _T | None:
    """The entry of `host`, whose key may be written as an URL."""
    if host in entries:
        return entries[host]
    wanted = _host_of(host)
    return next((entry for key, entry in entries.items() if _host_of(key) == wanted), None)


def _host_of(key: str) -> str:
    """`https://index.docker.io/v1/` is docker.io; a key with a repository is nobody's host."""
    bare = key.partition("://")[2] or key
    host, _, path = bare.partition("/")
    if path.strip("/") and path.strip("/") not in ("v1", "v2"):
        return key
    return "docker.io" if host.lower() in _HUB_NAMES else host.lower()


def _account(entry: _Entry, host: str) -> Account:
    if entry.identitytoken:
        return Account(REFRESH_USER, entry.identitytoken)
    if entry.auth:
        try:
            text = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, ValueError):
            text = ""
        username, colon, password = text.rstrip("\0").partition(":")
        if not colon or not username:
            raise ValueError(f"has an entry for {host} whose `auth` is no account")
        return Account(username, password)
    if entry.username and entry.password:
        return Account(entry.username, entry.password)
    raise ValueError(f"has an empty entry for {host}")
