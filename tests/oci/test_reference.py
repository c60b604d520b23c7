from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import (
    canonical_upstream,
    image_name,
    parse_reference,
    valid_repository,
    valid_tag,
)

DIGEST = "sha256:" + "a" * 64
HUB_APP = ImageName("docker.io", "library/app")


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("app", HUB_APP, None, None),
        ("app:1", HUB_APP, "1", None),
        ("docker.io/app", HUB_APP, None, None),
        ("index.docker.io/library/app", HUB_APP, None, None),
        ("a/b", ImageName("docker.io", "a/b"), None, None),
        ("localhost/x", ImageName("localhost", "x"), None, None),
        ("localhost:5000/x", ImageName("localhost:5000", "x"), None, None),
        (f"app@{DIGEST}", HUB_APP, None, DIGEST),
        (f"ghcr.io/a/b:v1@{DIGEST}", ImageName("ghcr.io", "a/b"), "v1", DIGEST),
        ("GHCR.io:443/a/b", ImageName("ghcr.io", "a/b"), None, None),
        ("[::1]:5000/x:1", ImageName("[::1]:5000", "x"), "1", None),
    ],
)
def test_references_as_docker_reads_them(
    text: str, name: ImageName, tag: str | None, digest: str | None
) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.tag, reference.digest) == (name, tag, digest)


def test_another_default_upstream_gets_no_library() -> None:
    assert parse_reference("app", default_upstream="r.test").name == ImageName("r.test", "app")


def test_the_target_is_the_digest_then_the_tag_then_latest() -> None:
    targets = [parse_reference(text).target for text in (f"a:1@{DIGEST}", "a:1", "a")]
    assert targets == [DIGEST, "1", "latest"]


@pytest.mark.parametrize("text", [f"app:1@{DIGEST}", "ghcr.io/a/b:1", "localhost:5000/x"])
def test_a_reference_prints_as_one_that_parses_to_itself(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "repository"),
        ("App", "repository"),
        ("a//b", "repository"),
        ("a/../b", "repository"),
        ("ghcr.io/", "repository"),
        ("app:", "tag"),
        ("app:.x", "tag"),
        ("app@sha256:1", "digest"),
        ("app@", "digest"),
        ("-x.io/app", "host"),
        ("r.test:99999/app", "port"),
        ("r.test:0/app", "port"),
        ("https://r.test/app", "host"),
        ("a" * 250, "repository"),
    ],
)
def test_the_error_names_the_wrong_part(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_reference(text)


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("GHCR.IO", "ghcr.io"),
        ("ghcr.io.", "ghcr.io"),
        ("ghcr.io.:443", "ghcr.io"),
        ("ghcr.io:443", "ghcr.io"),
        ("ghcr.io:0443", "ghcr.io"),
        ("ghcr.io:5000", "ghcr.io:5000"),
        ("registry-1.docker.io", "docker.io"),
        ("INDEX.docker.io.:443", "docker.io"),
        ("docker.io:5000", "docker.io:5000"),
        ("[::1]:443", "[::1]"),
    ],
)
def test_one_spelling_per_registry(host: str, canonical: str) -> None:
    assert canonical_upstream(host) == canonical


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", "a b", "a/b", "u@h", "a:b", "a:1:2", "ä.io", "a\n", "x" * 64 + ".io"]
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        canonical_upstream(host)


@given(st.text(max_size=80))
def test_a_canonical_host_is_canonical(text: str) -> None:
    try:
        host = canonical_upstream(text)
    except ValueError:
        return
    assert canonical_upstream(host) == host
    assert set(host) <= set(string.ascii_lowercase + string.digits + "-.:[]")


@given(st.text(alphabet=string.printable, max_size=60))
def test_any_text_parses_or_raises_value_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ValueError:
        return
    assert valid_repository(reference.name.repository)
    assert reference.tag is None or valid_tag(reference.tag)


def test_names_beyond_255_characters_with_their_host_are_refused() -> None:
    assert image_name("ghcr.io", "a" * 247)
    with pytest.raises(ValueError, match="repository"):
        image_name("ghcr.io", "a" * 248)


def test_a_hostile_repository_is_refused_in_linear_time() -> None:
    assert not valid_repository("a-" * 120 + "!")
