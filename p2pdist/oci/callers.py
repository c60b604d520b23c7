"""Who asks us for something of a registry that decides by itself who may read it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pdist.oci.auth import Challenge
from p2pdist.oci.credential_files import Account

# Tokens of registries have one to four KiB; aiohttp takes 8 KiB of a header.
_AUTHORIZATION: Final = re.compile(r"(basic|bearer) ([A-Za-z0-9\-._~+/]{1,8000}=*)", re.IGNORECASE)
# What may stand in a quoted string of a challenge as it is.
_PLAIN: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,1024}")
_REPOSITORY: Final = re.compile(r"[a-z0-9._/-]{1,255}")


@dataclass(frozen=True, slots=True)
class Caller:
    """The credentials that came with a request. They go to the registry that the request is for, by
    way of our proxies, and nowhere else: no text of a caller shows them."""

    authorization: str = field(default="", repr=False)
    """As the header has it; empty: nobody in particular."""

    @property
    def account(self) -> Account | None:
        """User and password; None: there is a token, or nothing."""
        scheme, _, value = self.authorization.partition(" ")
        return _account(value) if scheme == "Basic" else None


NOBODY: Final = Caller()


def read_caller(headers: Sequence[str]) -> Caller:
    """Read the `Authorization` headers of a request; what is none of the two schemes, or two of
    them, is nobody's. So is the empty account that Skopeo 1.9.3 sends without one."""
    if len(headers) != 1 or (told := _AUTHORIZATION.fullmatch(headers[0].strip())) is None:
        return NOBODY
    if told[1].lower() == "bearer":
        return Caller(f"Bearer {told[2]}")
    return Caller(f"Basic {told[2]}") if _account(told[2]) is not None else NOBODY


def _account(value: str) -> Account | None:
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return Account(user, password) if user and colon else None


def challenges_for(repository: str, told: Sequence[Challenge]) -> list[str]:
    """Word what a registry wants to see so that it leads to the right to pull `repository`, and to
    no other right, whatever its own words wish for; what cannot be passed on is left out."""
    if _REPOSITORY.fullmatch(repository) is None:
        return []
    return [text for challenge in told if (text := _worded(repository, challenge))]


def _worded(repository: str, challenge: Challenge) -> str:
    realm = _param(challenge.params, "realm")
    if challenge.scheme == "basic":
        return f'Basic realm="{realm or "registry"}"'
    if challenge.scheme != "bearer" or not realm:
        return ""
    service = _param(challenge.params, "service")
    middle = f',service="{service}"' if service else ""
    return f'Bearer realm="{realm}"{middle},scope="repository:{repository}:pull"'


def _param(params: Mapping[str, str], name: str) -> str:
    value = params.get(name, "")
    return value if _PLAIN.fullmatch(value) else ""
