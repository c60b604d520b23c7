"""Chain IDs: what engines call a layer with all those below it (OCI image specification,
config.md, "Layer ChainID")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from p2pdist.model.ids import Digest, parse_digest


def chain_ids(diff_ids: Sequence[Digest]) -> Iterator[Digest]:
    """One for each layer, from the lowest up."""
    chain: Digest | None = None
    for diff_id in diff_ids:
        if chain is None:
            chain = diff_id
        else:
            hashed = hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
            chain = parse_digest(f"sha256:{hashed}")
        yield chain
