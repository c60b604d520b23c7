"""Chain IDs: what engines call a layer with all those below it (OCI image specification,
config.md, "Layer ChainID")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from p2pdist.model.ids import Digest, digest_of


def chain_ids(diff_ids: Sequence[Digest]) -> Iterator[Digest]:
    """One for each layer, from the lowest up."""
    chain: Digest | None = None
    for diff_id in diff_ids:
        chain = diff_id if chain is None else digest_of(f"{chain} {diff_id}".encode())
        yield chain
