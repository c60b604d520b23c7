from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import (
    digest_from_wire,
    digest_of,
    digest_to_wire,
    parse_digest,
    parse_exchanged,
    parse_host_id,
    tag_key,
)


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_digests_read_back_from_the_wire(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)

    assert parse_digest(digest) == digest
    assert digest_from_wire(digest_to_wire(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 128,
        "sha512:" + "0" * 64,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 32,
        "sha256:../../etc/passwd",
        "sha256:" + "0" * 64 + "\n",
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        parse_digest(text)


def test_a_private_digest_is_one_among_hosts_only() -> None:
    private = f"private:{'0f' * 32}"

    assert parse_exchanged(private) == private
    assert digest_from_wire(digest_to_wire(parse_exchanged(private))) == private
    assert parse_exchanged(digest_of(b"")) == digest_of(b"")
    with pytest.raises(ValueError, match="not a digest"):
        parse_digest(private)
    for encoded in ("", "0" * 63, "A" * 64, "../" + "0" * 61):
        with pytest.raises(ValueError, match="not a digest"):
            parse_exchanged(f"private:{encoded}")


@pytest.mark.parametrize("data", [b"", b"\1", b"\1" + bytes(31), b"\2" + bytes(32), b"\4" * 33])
def test_a_malformed_digest_on_the_wire_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        digest_from_wire(data)


@pytest.mark.parametrize("text", ["", "g" * 32, "0" * 31, "0" * 33, "A" * 32])
def test_what_is_no_host_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a host id"):
        parse_host_id(text)


def test_a_tag_key_tells_names_apart() -> None:
    keys = {
        tag_key("docker.io", "library/app", "1"),
        tag_key("docker.io", "library/app", "2"),
        tag_key("docker.io", "library", "app\x001"),
        tag_key("ghcr.io", "library/app", "1"),
    }

    assert len(keys) == 4
