"""Errors by whose fault they are.

    P2pdistError
    ├── ConfigError      the operator can fix it; names the setting
    ├── PeerFault        a remote peer broke the protocol or served bad bytes
    │   ├── WrongSecret  it does not know our cluster secret
    │   ├── NoIdentity   its certificate is not for who it says it is, or it has none
    │   └── UnknownKey   it passed on what a key signed that we were not told to believe
    ├── LinkRefused      a host of ours keeps no link with us for now
    ├── UpstreamError    a registry could not serve us
    ├── RegistryError    the answer our own client gets, as an OCI error body
    │   └── CallerRefused  its credentials do not do for the registry
    ├── StoreError       the local disk could not serve us
    └── BlobFailed       a blob cannot be delivered any further

    OSError
    └── CannotListen     an address of ours cannot be bound

Expected outcomes are values, not exceptions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final


class ErrorReason(enum.StrEnum):
    """Why a client does not get what it asked for: a closed set, the same on its whole way.

    It is the `detail` of an error body, a label value and what exit codes follow from; what to do
    about each is said in `oci/refusals.py`.
    """

    MEMBERS_ONLY = "members_only"
    """The proxy answers hosts with a certificate only."""
    UNKNOWN = "unknown"
    """The registry says that there is no such thing."""
    NOT_LISTED = "not_listed"
    """No proxy reads this registry."""
    NOT_SHARED = "not_shared"
    """The proxy reads it with an account that is not for everybody."""
    CREDENTIALS = "credentials"
    """The registry, or its token service, does not accept who we say we are."""
    CALLER = "caller"
    """The registry does not let the caller read it by the credentials that came with the request,
    or none came."""
    DENIED = "denied"
    """The registry knows who we are, and refuses."""
    CALLER_BUDGET = "caller_budget"
    """The caller has had as much of registries by this proxy as one may for now."""
    RATE_LIMITED = "rate_limited"
    REGISTRY_DOWN = "registry_down"
    """No connection, or no answer in time."""
    REGISTRY_NAME = "registry_name"
    """Its name does not resolve."""
    REGISTRY_TLS = "registry_tls"
    """Its certificate is not trusted, or it does not speak TLS."""
    REGISTRY_PRIVATE = "registry_private"
    """It lies at an address that `allow_private` does not name."""
    REGISTRY_ERROR = "registry_error"
    """It answered 5xx, or something that is no answer."""
    NO_PROXY = "no_proxy"
    """No proxy could be asked."""
    PROXY_ERROR = "proxy_error"
    """What a proxy answered is not to be believed."""
    NO_SOURCE = "no_source"
    """Nobody who was asked has it now."""
    EXHAUSTED = "exhausted"
    """The host that was to ask has no descriptor left."""


_BY_STATUS: Final[Mapping[int, ErrorReason]] = {
    0: ErrorReason.REGISTRY_DOWN,
    401: ErrorReason.CREDENTIALS,
    403: ErrorReason.DENIED,
    404: ErrorReason.UNKNOWN,
    410: ErrorReason.UNKNOWN,
    429: ErrorReason.RATE_LIMITED,
}


class P2pdistError(Exception):
    """Root of everything p2pdist raises on purpose."""


class ConfigError(P2pdistError):
    """A setting is wrong; the text names the setting and the fix, unless `hint` does."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PeerFault(P2pdistError):
    """A remote peer broke the protocol or served bad bytes: score it, go elsewhere.

    `reason` is one of the bounded label values of `p2pdist_chunk_rejected_total`:
    `hash`, `length`, `timeout`, `map`, `proto`.
    """

    def __init__(self, message: str, *, reason: str = "proto") -> None:
        super().__init__(message)
        self.reason = reason


class WrongSecret(PeerFault):
    """The other end of a handshake does not know our cluster secret, or we do not know its."""

    def __init__(self) -> None:
        super().__init__("the other end does not know the cluster secret")


class NoIdentity(PeerFault):
    """The other end's certificate is not for who its hello names, or it has to show one."""


class UnknownKey(PeerFault):
    """A statement by a key that this host was not told to believe; `signer` is the key's id."""

    def __init__(self, signer: str) -> None:
        super().__init__(f"statement by the unknown key {signer}", reason="map")
        self.signer = signer


class LinkRefused(P2pdistError):
    """A host of ours keeps no link with us for now, and says when to ask again.

    `reason` is a bounded label value: `full`, `draining`, `host_id_in_use`, `identity`,
    or `other` for one that we do not know.
    """

    def __init__(self, reason: str, retry_s: float) -> None:
        super().__init__(f"no link is kept with us: {reason}; ask again in {retry_s:g} s")
        self.reason = reason
        self.retry_s = retry_s


class UpstreamError(P2pdistError):
    """A registry could not serve us; `status` is the HTTP status it gave (0: none).

    `reason`: by default as the status says.
    """

    def __init__(self, message: str, *, status: int = 0, reason: ErrorReason | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = 0.0
        """When it is worth to ask again; 0: nobody knows."""
        self.status = status
        self.reason = reason or _BY_STATUS.get(status, ErrorReason.REGISTRY_ERROR)


class RegistryError(P2pdistError):
    """What our client is told: an HTTP status and an OCI error code.

    Source: OCI distribution specification 1.1, "Error Codes". `reason` tells our own what runtimes
    are not to see in `status`, or they would not go elsewhere; None: the request itself is wrong.
    """

    def __init__(
        self, status: int, code: str, message: str, *, reason: ErrorReason | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = 0.0
        """Goes out as `Retry-After`; 0: nobody knows."""
        self.status = status
        self.code = code
        self.reason = reason


class CallerRefused(RegistryError):
    """A registry does not let the caller read it; `challenges` (`WWW-Authenticate`) say how it may
    become one that is let. Without one there is none better."""

    def __init__(
        self, status: int, code: str, message: str, *, challenges: Sequence[str] = ()
    ) -> None:
        super().__init__(status, code, message, reason=ErrorReason.CALLER)
        self.challenges = tuple(challenges)


class StoreError(P2pdistError):
    """The local store failed; `full` when the disk has no room left, `no_descriptors` when this
    process may open nothing more."""

    def __init__(self, message: str, *, full: bool = False, no_descriptors: bool = False) -> None:
        super().__init__(message)
        self.full = full
        self.no_descriptors = no_descriptors


class CannotListen(OSError):
    """An address that was to be listened on cannot be; `errno` is negative where its name does not
    resolve."""

    def __init__(self, host: str, port: int, why: OSError) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {why.strerror or why}")
        self.errno = why.errno
        self.host = host
        self.port = port


class BlobGone(StoreError):
    """The bytes of a blob were taken away from below, or replaced."""


class BlobFailed(P2pdistError):
    """No source can deliver the rest of a blob: the body must end short, by FIN."""
