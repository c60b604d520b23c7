"""Lists of referrers: pages put together, and filtered where upstream did not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from p2pdist.model.ids import Digest
from p2pdist.oci.manifest import OCI_INDEX

REFERRERS_MAX: Final = 10_000


class _Page(msgspec.Struct):
    manifests: list[dict[str, Any]] | None = None


def merge_referrers(pages: Iterable[bytes], artifact_type: str | None) -> bytes:
    """Return one index over all pages; raise ValueError for a page that is no index.

    Descriptors keep all their fields. Specification 1.1, "Listing Referrers".
    """
    found: list[dict[str, Any]] = []
    for page in pages:
        try:
            found += msgspec.json.decode(page, type=_Page).manifests or []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError("a list of referrers that is no index") from None
    if len(found) > REFERRERS_MAX:
        raise ValueError(f"more than {REFERRERS_MAX} referrers")
    if artifact_type is not None:
        found = [child for child in found if child.get("artifactType") == artifact_type]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})


def fallback_tag(digest: Digest) -> str:
    """The tag under which referrers lie where upstream has no API ("Referrers Tag Schema")."""
    return digest.replace(":", "-")[:128]
