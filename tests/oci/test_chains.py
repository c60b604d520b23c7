"""Chain IDs, as the OCI image specification has them."""

from __future__ import annotations

import hashlib

from p2pdist.model.ids import digest_of
from p2pdist.oci.chains import chain_ids


def test_chain_ids_are_those_of_the_specification() -> None:
    a, b, c = (digest_of(name) for name in (b"a", b"b", b"c"))
    of_b = f"sha256:{hashlib.sha256(f'{a} {b}'.encode()).hexdigest()}"
    of_c = f"sha256:{hashlib.sha256(f'{of_b} {c}'.encode()).hexdigest()}"

    assert list(chain_ids([a, b, c])) == [a, of_b, of_c]
    assert list(chain_ids([])) == []
