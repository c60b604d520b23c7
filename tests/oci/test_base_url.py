"""What operators write for registries and proxies."""

from __future__ import annotations

import pytest

from p2pdist.oci.base_url import check_base_url, check_origin_url, check_registry_host


@pytest.mark.parametrize(
    "text", ["docker.io", "GHCR.io", "r.corp:5000", "localhost:5000", "[::1]:5"]
)
def test_names_of_registries_are_taken(text: str) -> None:
    check_registry_host(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://ghcr.io", "no scheme: write 'ghcr.io'"),
        ("https://ghcr.io/v2/", "no scheme: write 'ghcr.io'"),
        ("docker.io/library", "no path: write 'docker.io'"),
        ("quay.io:0", "not a port"),
        ("gh cr.io", "not a registry host"),
        ("", "not a registry host"),
    ],
)
def test_names_that_are_none_are_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_registry_host(text)


@pytest.mark.parametrize(
    "text",
    ["http://10.0.0.1:5100", "https://r.corp/", "http://[fd00::1]:5100", "https://r/art/api"],
)
def test_urls_are_taken(text: str) -> None:
    check_base_url(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quay.io", "starts with http"),
        ("10.0.0.1:5100", "starts with http"),
        ("ftp://r.corp", "starts with http"),
        ("https://", "starts with http"),
        ("https://r.corp:99999", "[Pp]ort"),
        ("https://r.corp:0", "port 0"),
        ("https://u:p@r.corp", "account"),
        ("https://r.corp/?a=b", "query"),
    ],
)
def test_urls_that_lead_nowhere_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_base_url(text)


def test_a_proxy_has_no_path() -> None:
    check_origin_url("http://10.0.0.1:5100/")
    with pytest.raises(ValueError, match=r"write http://10\.0\.0\.1:5100: no path"):
        check_origin_url("http://10.0.0.1:5100/v2")
