"""Where the store keeps what."""

from __future__ import annotations

from pathlib import Path

from p2pdist.model.ids import Digest


def blob_path(root: Path, digest: Digest) -> Path:
    """Where a digest lies; digests are validated, so no name of the path is anybody's choice."""
    algorithm, _, encoded = digest.partition(":")
    return root / algorithm / encoded[:2] / encoded
