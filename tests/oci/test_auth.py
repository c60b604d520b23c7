from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.auth import (
    TOKEN_BODY_BYTES_MAX,
    Challenge,
    parse_challenges,
    parse_token_response,
    realm_allowed,
    scopes_asked,
    service_allowed,
)

OURS = "repository:library/app:pull"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        (["Basic"], [Challenge("basic", {})]),
        (['BASIC Realm="x"'], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t",service=r,scope="repository:a:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a/t", "service": "r", "scope": "repository:a:pull,push"},
                )
            ],
        ),
        (
            ['Basic realm="a, Bearer realm=b", bearer REALM = "c\\"d" , x=y'],
            [
                Challenge("basic", {"realm": "a, Bearer realm=b"}),
                Challenge("bearer", {"realm": 'c"d', "x": "y"}),
            ],
        ),
        (
            ["Negotiate YWJj==, Basic realm=r", "Bearer realm=s"],
            [
                Challenge("negotiate", {}),
                Challenge("basic", {"realm": "r"}),
                Challenge("bearer", {"realm": "s"}),
            ],
        ),
        (
            ["Negotiate, Basic realm=r"],
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "r"})],
        ),
        (["Bearer realm=a, realm=b"], [Challenge("bearer", {"realm": "a"})]),
        ([", ,Bearer realm=a,, service=b,"], [Challenge("bearer", {"realm": "a", "service": "b"})]),
        (['Bearer realm=a, x="open'], [Challenge("bearer", {"realm": "a"})]),
        (['"', "realm=x"], []),
    ],
)
def test_challenges(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(alphabet='Bearlm ",=\\xy/\t\r\n\0é', max_size=60), max_size=5))
def test_any_header_is_read_to_its_end(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme
        assert all(name == name.lower() for name in challenge.params)


def test_the_number_of_challenges_is_bounded() -> None:
    assert len(parse_challenges(["Basic, " * 1000] * 10)) == 16


@pytest.mark.parametrize(
    ("realm", "upstream"),
    [
        ("https://auth.docker.io/token", "registry-1.docker.io"),
        ("https://auth.docker.io/token", "docker.io"),
        ("https://ghcr.io/token", "ghcr.io"),
        ("https://GHCR.io./token", "ghcr.io"),
        ("https://gitlab.com/jwt/auth", "registry.gitlab.com"),
        ("https://auth.example.co.uk/t", "registry.example.co.uk"),
        ("https://me.azurecr.io/oauth2/token", "me.azurecr.io"),
        ("https://10.0.0.1:5001/t", "10.0.0.1:5000"),
        ("https://[fd00::1]/t", "[fd00::1]:5000"),
        ("https://[FD00:0:0::1]:5001/t", "[fd00::1]:5000"),
        ("https://[fd00::1%25eth0]/t", "[fd00::1%eth0]:5000"),
        ("https://localhost/t", "localhost:5000"),
        ("https://registry/t", "registry"),
    ],
)
def test_realms_of_the_same_owner(realm: str, upstream: str) -> None:
    assert realm_allowed(realm, upstream)


@pytest.mark.parametrize(
    ("realm", "upstream"),
    [
        ("https://evil.test/token", "ghcr.io"),
        ("https://ghcr.io.evil.test/token", "ghcr.io"),
        ("https://evilghcr.io/token", "ghcr.io"),
        ("https://ghcr.io@evil.test/token", "ghcr.io"),
        ("https://evil.test\\@ghcr.io/token", "ghcr.io"),
        ("https://evil.test\\.ghcr.io/token", "ghcr.io"),
        ("https://user:pass@ghcr.io/token", "ghcr.io"),
        ("https://evil.co.uk/t", "registry.example.co.uk"),
        ("https://co.uk/t", "evil.co.uk"),
        ("https://other.azurecr.io/t", "me.azurecr.io"),
        ("https://evil.cluster.local/t", "registry.ns.svc.cluster.local"),
        ("https://127.0.0.1/t", "ghcr.io"),
        ("https://2130706433/t", "ghcr.io"),
        ("https://0x7f.1/t", "x.1"),
        ("https://10.0.0.2/t", "10.0.0.1"),
        ("https://9.10.0.1/t", "8.10.0.1"),
        ("https://[::1]/t", "ghcr.io"),
        ("https://[fd00::2]/t", "[fd00::1]:5000"),
        ("https://[fd00::1%25eth1]/t", "[fd00::1%eth0]:5000"),
        ("https://[::1/t", "ghcr.io"),
        ("https://localhost/t", "ghcr.io"),
        ("https://auth.localhost/t", "registry.localhost"),
        ("http://ghcr.io/token", "ghcr.io"),
        ("ftp://ghcr.io/token", "ghcr.io"),
        ("https://ghcr.io:x/token", "ghcr.io"),
        ("https://ghcr.io/\ntoken", "ghcr.io"),
        ("//ghcr.io/token", "ghcr.io"),
        ("/token", "ghcr.io"),
        ("", "ghcr.io"),
        ("https://io/token", "ghcr.io"),
        ("https://evil.me.uk/t", "registry.corp.me.uk"),
        ("https://evil.duckdns.org/t", "me.duckdns.org"),
        ("https://evil.fly.dev/t", "registry.fly.dev"),
        ("https://evil.trycloudflare.com/t", "me.trycloudflare.com"),
        ("https://other.azurecr.cn/t", "me.azurecr.cn"),
        (
            "https://2.dkr.ecr.cn-north-1.amazonaws.com.cn/t",
            "1.dkr.ecr.cn-north-1.amazonaws.com.cn",
        ),
        ("https://evil.github.io/t", "me.github.io"),
        ("https://evil.nip.io/t", "registry.10-0-0-1.nip.io"),
    ],
)
def test_realms_of_strangers(realm: str, upstream: str) -> None:
    assert not realm_allowed(realm, upstream)


def test_the_operator_may_allow_another_host() -> None:
    assert realm_allowed("https://git.corp.test/jwt", "r.other.test", {"git.corp.test"})


@pytest.mark.parametrize(
    ("service", "upstream"),
    [
        ("registry.docker.io", "registry-1.docker.io:443"),
        ("ghcr.io", "ghcr.io:443"),
        ("me.azurecr.io", "me.azurecr.io"),
        ("registry.gitlab.com:443", "registry.gitlab.com"),
        ("harbor-registry", "harbor.corp.test"),
        ("Docker registry", "r.corp.test:5000"),
        ("container_registry", "registry.gitlab.com"),
        ("", "ghcr.io"),
    ],
)
def test_services_that_may_be_the_upstreams_own(service: str, upstream: str) -> None:
    assert service_allowed(service, upstream)


@pytest.mark.parametrize(
    ("service", "upstream"),
    [
        ("other-registry.corp", "ghcr.io"),
        ("ghcr.io", "mallory.example"),
        ("GHCR.io.", "mallory.example"),
        ("other.azurecr.io", "me.azurecr.io"),
        ("10.0.0.2:5000", "10.0.0.1:5000"),
    ],
)
def test_a_token_for_another_registry_is_not_asked_for(service: str, upstream: str) -> None:
    assert not service_allowed(service, upstream)


def test_the_operator_may_allow_another_service() -> None:
    assert service_allowed("other-registry.corp", "ghcr.io", {"other-registry.corp"})


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("", [OURS]),
        (OURS, [OURS]),
        ("repository:prod/db:pull,push,delete registry:catalog:*", [OURS]),
        ("repository:library/app:pull,push", [OURS]),
        ("aws", [OURS, "aws"]),
        ("a b c d e f g", [OURS, "a", "b", "c", "d"]),
        ("x" * 33, [OURS]),
    ],
)
def test_the_rights_of_a_token_are_what_we_need(told: str, asked: list[str]) -> None:
    assert scopes_asked(told, OURS) == asked


def test_plain_http_is_for_upstreams_that_are_plain_http() -> None:
    assert realm_allowed("http://r.test/t", "r.test:5000", upstream_is_http=True)
    assert not realm_allowed("http://evil.test.x/t", "r.test:5000", upstream_is_http=True)


@pytest.mark.parametrize(
    ("body", "token", "expires_in_s"),
    [
        (b'{"token":"a"}', "a", 60),
        (b'{"access_token":"b","expires_in":300}', "b", 300),
        (b'{"token":"a","access_token":"b","expires_in":0}', "a", 60),
        (b'{"token":"a","expires_in":-5}', "a", 60),
        (b'{"token":"a","expires_in":30.5,"issued_at":"x"}', "a", 30),
        (b'{"token":"a","expires_in":999999999}', "a", 86400),
        (b'{"token":null,"access_token":"b"}', "b", 60),
        (b'{"token":"a","access_token":null,"refresh_token":null}', "a", 60),
        (b'{"token":"a","expires_in":null,"issued_at":null}', "a", 60),
    ],
)
def test_tokens(body: bytes, token: str, expires_in_s: int) -> None:
    found = parse_token_response(body)
    assert (found.token, found.expires_in_s) == (token, expires_in_s)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"token":""}',
        b'{"token":null}',
        b'{"token":null,"access_token":null}',
        b'{"token":"a b"}',
        b'{"token":"a\\r\\nX-Evil: 1"}',
        b'{"token":5}',
        b'{"token":"a","expires_in":1e300}',
        b'{"a":' * 100_000,
        b" " * (TOKEN_BODY_BYTES_MAX + 1),
    ],
    ids=range(13),
)
def test_token_answers_that_are_unusable(body: bytes) -> None:
    with pytest.raises(ValueError, match="token answer"):
        parse_token_response(body)


def test_a_token_never_shows_in_a_representation_or_error() -> None:
    assert "s3cret" not in repr(parse_token_response(b'{"token":"s3cret"}'))
    with pytest.raises(ValueError, match="token answer") as refused:
        parse_token_response(b'{"token":"s3cret"')
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
