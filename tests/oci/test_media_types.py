from __future__ import annotations

import pytest

from p2pdist.oci.manifest import MANIFEST_ACCEPT
from p2pdist.oci.media_types import (
    ACCEPTED_LENGTH_MAX,
    ACCEPTED_MAX,
    accepted_beyond,
    valid_media_type,
)

ORAS = "application/vnd.cncf.oras.artifact.manifest.v1+json"


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (ORAS, True),
        ("*/*", True),
        ("a/b", True),
        ("a", False),
        ("a/b/c", False),
        ("a/b c", False),
        ("a/b\r\nX: y", False),
        ("a/b\n", False),
        ("a/\u00e9", False),
        ("a/" + "b" * 128, False),
    ],
)
def test_what_is_a_media_type(text: str, valid: bool) -> None:
    assert valid_media_type(text) is valid


@pytest.mark.parametrize(
    ("lines", "beyond"),
    [
        ([], ()),
        ([", ".join(MANIFEST_ACCEPT)], ()),
        ([f"{ORAS}, */*"], (ORAS, "*/*")),
        ([f"*/*,{ORAS};q=0.5", ORAS], (ORAS, "*/*")),
        (["a/b;q=0, c/d; Q=0.00,e/f;q=0.01"], ("e/f",)),
        (["a/b\r\nHost: x, broken, c/d"], ("c/d",)),
        (["application/vnd.docker.distribution.manifest.v1+prettyjws"], ()),
    ],
)
def test_what_a_client_accepts_beyond_ours(lines: list[str], beyond: tuple[str, ...]) -> None:
    assert accepted_beyond(lines, MANIFEST_ACCEPT) == beyond


def test_what_is_accepted_is_bounded() -> None:
    many = [f"a/b{number}" for number in range(1000)]
    assert len(accepted_beyond(many, ())) == ACCEPTED_MAX
    long = [f"a/{'b' * 100}{number}" for number in range(1000)]
    assert sum(map(len, accepted_beyond(long, ()))) <= ACCEPTED_LENGTH_MAX
