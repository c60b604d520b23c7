"""What clients are told for each reason: a status, a code, and a sentence with the fix.

Proxy and peer answer alike: what one of them heard of the other goes on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2pdist.errors import ErrorReason, RegistryError

# Every status makes clients take the next endpoint (registry contract 3.4). 401 would be a
# challenge, and 429 makes containerd ask six times at once; a 502 says that nothing was decided.
# containerd keeps the first error that is no 404: of a registry that is none of ours it is to show
# that registry's own.
_STATUS: Final[Mapping[ErrorReason, int]] = {
    ErrorReason.UNKNOWN: 404,
    ErrorReason.NOT_LISTED: 404,
    ErrorReason.NOT_SHARED: 403,
    ErrorReason.MEMBERS_ONLY: 403,
    ErrorReason.CREDENTIALS: 403,
    ErrorReason.CALLER: 403,
    ErrorReason.DENIED: 403,
    ErrorReason.EXHAUSTED: 503,
    # To hosts that ask at will: six requests at once cost no registry anything.
    ErrorReason.CALLER_BUDGET: 429,
}
_UNDECIDED: Final = 502

_CODE: Final[Mapping[ErrorReason, str]] = {
    ErrorReason.NOT_LISTED: "NAME_UNKNOWN",
    ErrorReason.NOT_SHARED: "DENIED",
    ErrorReason.MEMBERS_ONLY: "DENIED",
    ErrorReason.CREDENTIALS: "UNAUTHORIZED",
    ErrorReason.CALLER: "DENIED",
    ErrorReason.DENIED: "DENIED",
    ErrorReason.CALLER_BUDGET: "TOOMANYREQUESTS",
}

_FIX: Final[Mapping[ErrorReason, str]] = {
    ErrorReason.UNKNOWN: "check the name",
    ErrorReason.NOT_LISTED: "add [[upstream]] {registry} at the proxy to have it served",
    ErrorReason.NOT_SHARED: 'set access = "shared" in [[upstream]] {registry} at the proxy',
    ErrorReason.MEMBERS_ONLY: (
        "give the host a certificate (p2pdist ca issue), or name its network in proxy.open_to"
    ),
    ErrorReason.CREDENTIALS: (
        "check the account of [[upstream]] {registry} at the proxy; some registries say so of an"
        " image that does not exist"
    ),
    ErrorReason.CALLER: (
        "give the runtime an account of {registry} for this mirror that may read the image, or let"
        " it ask {registry} itself"
    ),
    ErrorReason.DENIED: (
        "give the account of [[upstream]] {registry} at the proxy the right to read it"
    ),
    ErrorReason.CALLER_BUDGET: (
        "try again later; proxy.caller_questions and proxy.caller_rate say how much that is"
    ),
    ErrorReason.RATE_LIMITED: (
        "try again later; named accounts ([[upstream]] {registry} at the proxy) may ask more"
    ),
    ErrorReason.REGISTRY_DOWN: "is {registry} up, and does a firewall let the proxy through to it?",
    ErrorReason.REGISTRY_NAME: (
        "check the url of [[upstream]] {registry} and the DNS of the proxy's machine"
    ),
    ErrorReason.REGISTRY_TLS: (
        "name who signed it in ca_file of [[upstream]] {registry} at the proxy, or say http in its"
        " url if it speaks no TLS"
    ),
    ErrorReason.REGISTRY_PRIVATE: (
        "name its address or network in allow_private of [[upstream]] {registry} at the proxy"
    ),
    ErrorReason.REGISTRY_ERROR: "look at the log of {registry}; try again later",
    ErrorReason.NO_PROXY: "is a proxy running, and does peer.proxies name it?",
    ErrorReason.PROXY_ERROR: "compare cluster.proxy_keys here with the key of the proxy",
    ErrorReason.NO_SOURCE: "try again later; the log of the proxy says what it was answered",
    ErrorReason.EXHAUSTED: "raise LimitNOFILE (ulimit -n) of that daemon",
}

DEFINITE: Final = frozenset(
    {
        ErrorReason.UNKNOWN,
        ErrorReason.NOT_SHARED,
        ErrorReason.CREDENTIALS,
        ErrorReason.CALLER,
        ErrorReason.DENIED,
    }
)
"""Somebody who knows has decided: no other source may overrule it. One proxy that does not list a
registry decides nothing for the others."""


def fix_of(reason: ErrorReason, registry: str) -> str:
    """What to do about it."""
    return _FIX[reason].format(registry=registry)


def sentence(reason: ErrorReason, registry: str, text: str) -> str:
    """`text`, and what to do; once, however many of us pass it on."""
    fix = fix_of(reason, registry)
    return text if text.endswith(fix) else f"{text}: {fix}"


def without_fix(reason: ErrorReason, registry: str, text: str) -> str:
    """What happened, for those who say the fix apart."""
    return text.removesuffix(fix_of(reason, registry)).removesuffix(": ")


def refusal(
    reason: ErrorReason, registry: str, text: str, *, unknown: str = "MANIFEST_UNKNOWN"
) -> RegistryError:
    """The answer of a manifest or a list; `unknown` is its code where `reason` has none."""
    return RegistryError(
        _STATUS.get(reason, _UNDECIDED),
        _CODE.get(reason, unknown),
        sentence(reason, registry, text),
        reason=reason,
    )


def blob_refusal(reason: ErrorReason, registry: str, text: str) -> RegistryError:
    """404 for all: dockerd retries a blob's 5xx for 75 s, containerd its 429 at once."""
    text = sentence(reason, registry, text)
    return RegistryError(404, "BLOB_UNKNOWN", text, reason=reason)
