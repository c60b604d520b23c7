"""Token authentication against upstreams: challenges, realms, token answers.

A realm is chosen by whoever answers in the upstream's name, and it is where our password goes: see
CVE-2026-33540 (distribution posted it to any realm).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from publicsuffixlist import PublicSuffixList

# containers/image reads at most 1 MiB of a token answer (`iolimits.go`).
TOKEN_BODY_BYTES_MAX: Final = 1 << 20
# Docker token specification: the lifetime of a token whose answer does not tell.
TOKEN_LIFETIME_DEFAULT_S: Final = 60
# Tokens are kept in memory only; a day is beyond what any registry of ours issues.
TOKEN_LIFETIME_MAX_S: Final = 24 * 3600

_CHALLENGES_MAX: Final = 16
_HEADER_LENGTH_MAX: Final = 8192

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105  (RFC 9110's word, no secret)
_SEPARATOR: Final = re.compile(r"[ \t,]*")
_PARAM: Final = re.compile(
    rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))(?=[ \t,]|$)'
)
_SCHEME: Final = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_TOKEN68: Final = re.compile(r"[ \t]+[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))")
_ESCAPE: Final = re.compile(r"\\(.)")
_HOST_NAME: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_SCOPE_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_WORDS_MAX: Final = 4

# Domains of one owner in the Public Suffix List whose subdomains belong to different customers:
# only the very same host is trusted there.
_SHARED_DOMAINS: Final = frozenset(
    {
        "amazonaws.com",
        "amazonaws.com.cn",
        "azurecr.cn",
        "azurecr.io",
        "cluster.local",
        "jfrog.io",
        "nip.io",
        "pkg.dev",
        "sslip.io",
        "windows.net",
    }
)


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    """In lower case."""
    params: Mapping[str, str]
    """Names in lower case; of a repeated one the first counts."""


@dataclass(frozen=True, slots=True)
class Token:
    token: str = field(repr=False)
    expires_in_s: int


class _TokenJson(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: Annotated[float, msgspec.Meta(lt=1e12)] | None = None


_TOKEN_DECODER: Final = msgspec.json.Decoder(_TokenJson)
_TOKEN_VALUE: Final = re.compile(r"[\x21-\x7e]+")


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Parse all `WWW-Authenticate` values of one answer, in order; malformed tails are dropped."""
    challenges: list[Challenge] = []
    for header in headers:
        challenges += _parse_header(header[:_HEADER_LENGTH_MAX])
    return challenges[:_CHALLENGES_MAX]


def _parse_header(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = _skip(_SEPARATOR, header, 0)
    while at < len(header):
        if found and (param := _PARAM.match(header, at)):
            value = param[3] if param[2] is None else _ESCAPE.sub(r"\1", param[2])
            found[-1][1].setdefault(param[1].lower(), value)
            at = param.end()
        elif scheme := _SCHEME.match(header, at):
            found.append((scheme[1].lower(), {}))
            at = _skip(_TOKEN68, header, scheme.end())
        else:
            break
        at = _skip(_SEPARATOR, header, at)
    return [Challenge(scheme, params) for scheme, params in found]


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def realm_allowed(
    realm_url: str,
    upstream_host: str,
    extra_hosts: Collection[str] = (),
    *,
    upstream_is_http: bool = False,
) -> bool:
    """Tell whether credentials for `upstream_host` (`host[:port]`) may go to `realm_url`.

    Allowed: the same host (whatever the port), the same registrable domain, and `extra_hosts` of
    the operator. An IP literal or localhost must be the upstream itself. Plain http only where the
    upstream is.
    """
    try:
        realm = urlsplit(realm_url)
        host, _ = _plain_host(realm.hostname), realm.port
        upstream = _plain_host(urlsplit(f"//{upstream_host}").hostname)
    except ValueError:
        return False
    if not host or "\\" in realm_url or not realm_url.isprintable() or "@" in realm.netloc:
        return False
    if realm.scheme != "https" and not (realm.scheme == "http" and upstream_is_http):
        return False
    if host == upstream or host in {extra.lower() for extra in extra_hosts}:
        return True
    if _is_local(host) or _is_local(upstream):
        return False
    domain = _registrable_domain(host)
    return domain is not None and domain == _registrable_domain(upstream)


def _plain_host(host: str | None) -> str:
    """One text for each host: without the dot of a full name, and IPv6 in its shortest form."""
    plain = (host or "").rstrip(".")
    try:
        return str(ipaddress.IPv6Address(plain.replace("%25", "%", 1)))
    except ValueError:
        return plain


def _is_local(host: str) -> bool:
    """IP literals in any spelling that a resolver takes (`2130706433`, `0x7f.1`), and localhost."""
    last = host.rpartition(".")[2]
    if last == "localhost" or last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _registrable_domain(host: str) -> str | None:
    """The part of `host` that one owner registered; None where that cannot be told."""
    domain: str | None = _public_suffixes().privatesuffix(host)
    return None if domain in _SHARED_DOMAINS else domain


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """35 ms to read, which a command that asks no registry need not spend."""
    return PublicSuffixList()


def service_allowed(service: str, upstream_host: str, extra_hosts: Collection[str] = ()) -> bool:
    """Tell whether a token for `service` is one for `upstream_host` (`host[:port]`).

    A token that an upstream may have us ask for in another one's name would be good there. Names
    that are no host's (`harbor-registry`, `Docker registry`) say nothing.
    """
    name = service.partition(":")[0].lower().rstrip(".")
    if _HOST_NAME.fullmatch(name) is None:
        return True
    return realm_allowed(f"https://{name}", upstream_host, extra_hosts)


def scopes_asked(told: str, scope: str) -> list[str]:
    """The scopes of a token to ask for: ours, whatever a challenge wishes, but for single words
    (`aws`, of ECR Public), which name no right. An empty `scope` is none."""
    words = [word for word in told.split()[:_WORDS_MAX] if _SCOPE_WORD.fullmatch(word)]
    return [*([scope] if scope else []), *dict.fromkeys(words)]


def parse_token_response(body: bytes) -> Token:
    """Read the answer of a token service; raise ValueError where there is no usable token in it."""
    if len(body) > TOKEN_BODY_BYTES_MAX:
        raise ValueError(f"token answer of {len(body)} bytes")
    try:
        answer = _TOKEN_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The decoder's own text could quote the body, and with it a token.
        raise ValueError("malformed token answer") from None
    token = answer.token or answer.access_token or ""
    if _TOKEN_VALUE.fullmatch(token) is None:
        raise ValueError("token answer without a usable token")
    lifetime = answer.expires_in
    if lifetime is None or lifetime < 1:
        return Token(token, TOKEN_LIFETIME_DEFAULT_S)
    return Token(token, min(int(lifetime), TOKEN_LIFETIME_MAX_S))
