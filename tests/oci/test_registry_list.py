from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.reference import canonical_upstream
from p2pdist.oci.registry_list import LIST_BYTES_MAX, encode_registries, parse_registries


def test_a_list_comes_as_it_was_told() -> None:
    hosts = frozenset({"docker.io", "ghcr.io", "r.test:5000"})

    assert parse_registries(encode_registries(hosts)) == hosts
    assert parse_registries(encode_registries([])) == frozenset()


def test_a_list_that_no_reader_takes_tells_nothing() -> None:
    hosts = [f"registry-{n:0{200}}.test" for n in range(LIST_BYTES_MAX // 200)]

    assert parse_registries(encode_registries(hosts)) is None


@pytest.mark.parametrize(
    "body",
    [b"{}", b"", b"[]", b"\xff", b'{"registries": null}', b'{"registries": 7}',
     b'{"registries": [7]}', b"[" * 60_000],
)  # fmt: skip
def test_the_body_of_another_registry_tells_nothing(body: bytes) -> None:
    assert parse_registries(body) is None


def test_what_is_no_registry_is_left_out() -> None:
    body = b'{"registries": ["ghcr.io", "GHCR.IO", "a/b", "", "https://x", "x:99999", "\\u0000"]}'

    assert parse_registries(body) == frozenset({"ghcr.io"})


@given(st.binary(max_size=300) | st.lists(st.text(max_size=20)).map(encode_registries))
def test_whatever_comes_is_nothing_or_names(body: bytes) -> None:
    told = parse_registries(body)

    assert told is None or all(canonical_upstream(host) == host for host in told)
