"""Links to next pages: which queries travel, and where a list ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.paging import (
    QUERY_LENGTH_MAX,
    check_query,
    following_query,
    goes_on,
    is_repeated,
    without_namespace,
)

LIST = "/v2/library/app/tags/list"


@pytest.mark.parametrize(
    ("link", "query"),
    [
        (f"{LIST}?last=v1&n=10", "last=v1&n=10"),
        (f"{LIST}?n=50&next_page=gAAA%3D%3D", "n=50&next_page=gAAA%3D%3D"),
        (f"{LIST}?n=50&next_page=gA/A+==", "n=50&next_page=gA/A+=="),
        (f"https://other.test:5000{LIST}?last=20", "last=20"),
        (f"http://other.test/artifactory/api/docker/x{LIST}?last=20", "last=20"),
        ("?last=20", "last=20"),
        ("list?last=20", "last=20"),
        ("/v2/library%2Fapp/tags/list?last=20", "last=20"),
        (f"{LIST}?last=20#there", "last=20"),
        (LIST, ""),
    ],
)
def test_the_query_of_a_link_is_taken_as_it_is(link: str, query: str) -> None:
    assert following_query(link, LIST) == query


@pytest.mark.parametrize(
    "link",
    [
        "/v2/library/other/tags/list?last=1",
        "/v2/other/library/app/tags/list?last=1",
        "/v2/library/app/manifests/1?last=1",
        "http://169.254.169.254/?last=1",
        "//evil.test?last=1",
        f"{LIST}?last=\u00e9",
        f'{LIST}?last="',
        f"{LIST}?last=a b",
        f"{LIST}?last=a\\b",
        f"{LIST}?last=" + "a" * QUERY_LENGTH_MAX,
        f"{LIST}?last=1&ns=other.test",
        f"{LIST}?last=1&n%73=other.test",
        "http://[::1/x?last=1",
    ],
)
def test_what_leads_elsewhere_or_is_no_query_is_refused(link: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        following_query(link, LIST)


@given(st.text(max_size=60))
def test_any_link_is_refused_or_leaves_a_query_for_one_line(text: str) -> None:
    try:
        query = following_query(f"{LIST}?{text}", LIST)
    except ValueError:
        return
    assert query.isascii()
    assert query.isprintable()
    assert not set(query) & set(' "#<>\\')
    assert check_query(query) == query


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ""),
        ("ns=r.test", ""),
        ("ns=r.test%3A5000&n=5", "n=5"),
        ("n=5&ns=r.test&last=a%2Fb+c==", "n=5&last=a%2Fb+c=="),
        ("n=5&%6es=r.test", "n=5"),
        ("n=5&&last=", "n=5&last="),
        ("nsx=1&xns=2", "nsx=1&xns=2"),
    ],
)
def test_our_own_field_is_taken_out_and_nothing_else(query: str, left: str) -> None:
    assert without_namespace(query) == left


@pytest.mark.parametrize(
    ("query", "following"),
    [
        ("", "last=b&n=2"),
        ("n=2", "n=2&last=b"),
        ("last=b&n=2", "last=c&n=2"),
        ("n=2&next_page=x", "n=2&next_page=y"),
        ("last=%fe", "last=%ff"),
        ("n=2&page=1", "n=2&page=2"),
    ],
)
def test_another_page_goes_on(query: str, following: str) -> None:
    assert goes_on(query, following)


@pytest.mark.parametrize(
    ("query", "following"),
    [
        ("last=b&n=2", "last=b&n=2"),
        ("last=b&n=2", "n=2&last=b"),
        ("last=b", "n=100&last=b"),
        ("last=a%2Fb", "last=a/b"),
        ("next_page=x&n=2", "next_page=x"),
        ("n=2", "n=2"),
        ("", "n=100"),
        ("last=b", ""),
    ],
)
def test_the_same_page_again_does_not(query: str, following: str) -> None:
    assert not goes_on(query, following)


def test_a_page_that_ends_where_it_should_begin_is_the_one_before() -> None:
    assert is_repeated("n=2&last=b", ["a", "b"])


@pytest.mark.parametrize(
    ("query", "tags"),
    [
        ("n=2", ["a", "b"]),
        ("n=2&last=b", ["c", "d"]),
        ("n=2&last=b", []),
        ("last=2&n=2", ["2", "1"]),
        ("last=b&page=2", ["a", "b"]),
    ],
)
def test_other_pages_are_not_repeated(query: str, tags: list[str]) -> None:
    assert not is_repeated(query, tags)
