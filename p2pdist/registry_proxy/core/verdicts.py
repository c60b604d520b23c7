"""What our clients are told when upstream could not serve us."""

from __future__ import annotations

from p2pdist.errors import ErrorReason, RegistryError, UpstreamError
from p2pdist.oci import refusals
from p2pdist.oci.refusals import DEFINITE


def is_answer(error: UpstreamError) -> bool:
    """Whether upstream decided: 401, 403 and 404 are answers, silence, 429 and 5xx are not.

    An old copy stands in for silence only: a tag that was deleted must not live on.
    """
    return error.reason in DEFINITE


def manifest_refusal(error: UpstreamError, registry: str, code: str) -> RegistryError:
    """`code`: that of the upstream's own answer."""
    known = "NAME_UNKNOWN" if _no_repository(error, code) else "MANIFEST_UNKNOWN"
    return _timed(error, refusals.refusal(error.reason, registry, str(error), unknown=known))


def blob_refusal(error: UpstreamError, registry: str) -> RegistryError:
    return _timed(error, refusals.blob_refusal(error.reason, registry, str(error)))


def list_refusal(error: UpstreamError, registry: str) -> RegistryError:
    """For tag lists and referrers."""
    told = refusals.refusal(error.reason, registry, str(error), unknown="NAME_UNKNOWN")
    return _timed(error, told)


def _timed(error: UpstreamError, told: RegistryError) -> RegistryError:
    told.retry_after_s = error.retry_after_s
    return told


def _no_repository(error: UpstreamError, code: str) -> bool:
    return error.reason is ErrorReason.UNKNOWN and code == "NAME_UNKNOWN"
