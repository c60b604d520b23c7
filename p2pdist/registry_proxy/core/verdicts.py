"""What our clients are told when upstream could not serve us."""

from __future__ import annotations

from typing import Final

from p2pdist.errors import RegistryError

_DENIED: Final = frozenset({401, 403})
_NOT_FOUND: Final = frozenset({404, 410})


def is_answer(status: int) -> bool:
    """Whether upstream decided: 401, 403 and 404 are answers, silence, 429 and 5xx are not.

    An old copy stands in for silence only: a tag that was deleted must not live on.
    """
    return status in _DENIED or status in _NOT_FOUND


def manifest_refusal(
    status: int, code: str, text: str, *, exhausted: bool = False
) -> RegistryError:
    """Every status makes clients take the next endpoint (registry contract 3.4).

    401 would be a challenge, and 429 makes containerd ask six times at once; a 502 tells our peers
    that nothing was decided, so that they go on to the swarm and to upstream. `exhausted`: it is
    this host that could not, and 503 says so.
    """
    if status in _DENIED:
        return RegistryError(403, "DENIED", text)
    if status in _NOT_FOUND:
        known = code if code == "NAME_UNKNOWN" else "MANIFEST_UNKNOWN"
        return RegistryError(404, known, text)
    return RegistryError(503 if exhausted else 502, "MANIFEST_UNKNOWN", text)


def blob_refusal(status: int, text: str) -> RegistryError:
    """404 for all but a denial: dockerd retries a blob's 5xx for 75 s."""
    if status in _DENIED:
        return RegistryError(403, "DENIED", text)
    return RegistryError(404, "BLOB_UNKNOWN", text)


def list_refusal(status: int, text: str) -> RegistryError:
    """For tag lists and referrers."""
    if status in _DENIED:
        return RegistryError(403, "DENIED", text)
    return RegistryError(404 if status in _NOT_FOUND else 502, "NAME_UNKNOWN", text)
