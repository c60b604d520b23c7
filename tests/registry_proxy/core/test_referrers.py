"""Pages of referrers become one index."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_INDEX, media_type_of
from p2pdist.registry_proxy.core.referrers import REFERRERS_MAX, fallback_tag, merge_referrers


def page(*types: str) -> bytes:
    children = [{"digest": f"d-{t}", "artifactType": t, "annotations": {"a": t}} for t in types]
    return json.dumps({"schemaVersion": 2, "manifests": children}).encode()


def test_pages_are_joined_in_order_with_all_their_fields() -> None:
    merged = json.loads(merge_referrers([page("x", "y"), page("z")], None))

    assert [child["annotations"]["a"] for child in merged["manifests"]] == ["x", "y", "z"]


def test_a_wanted_type_is_filtered_for() -> None:
    merged = json.loads(merge_referrers([page("x", "y"), page("x")], "x"))

    assert [child["artifactType"] for child in merged["manifests"]] == ["x", "x"]


def test_no_pages_are_an_empty_index() -> None:
    assert media_type_of(merge_referrers([], None)) == OCI_INDEX


def test_descriptors_go_out_byte_by_byte() -> None:
    child = b'{ "digest":"d", "x":1.50, "x":[[ ]], "artifactType":"\\u0061" }'

    merged = merge_referrers([b'{"manifests":[' + child + b"]}"], "a")

    assert child in merged


@pytest.mark.parametrize("child", ["1", "null", "[]", '{"artifactType": 1}'])
def test_what_is_no_descriptor_is_refused(child: str) -> None:
    with pytest.raises(ValueError, match="no index"):
        merge_referrers([f'{{"manifests":[{child}]}}'.encode()], None)


@pytest.mark.parametrize("counts", [[REFERRERS_MAX + 1], [REFERRERS_MAX, 1]])
def test_more_referrers_than_anybody_has_are_refused(counts: list[int]) -> None:
    pages = [page(*["t"] * count) for count in counts]

    with pytest.raises(ValueError, match="more than"):
        merge_referrers(pages, "x")


@given(st.binary(max_size=200))
def test_foreign_bytes_are_an_index_or_refused(body: bytes) -> None:
    try:
        merged = merge_referrers([body], None)
    except ValueError:
        return
    assert media_type_of(merged) == OCI_INDEX


def test_html_is_refused() -> None:
    with pytest.raises(ValueError, match="no index"):
        merge_referrers([b"<html>"], None)


def test_the_fallback_tag_follows_the_specification() -> None:
    digest = digest_of(b"x")

    assert fallback_tag(digest) == "sha256-" + digest.removeprefix("sha256:")
    assert len(fallback_tag(digest_of(b"x", "sha512"))) == 128
