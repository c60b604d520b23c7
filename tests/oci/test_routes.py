from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.model.ids import parse_digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.paging import QUERY_LENGTH_MAX
from p2pdist.oci.reference import valid_repository
from p2pdist.oci.routes import (
    TARGET_LENGTH_MAX,
    BlobRoute,
    ManifestRoute,
    Ping,
    ReferrersRoute,
    Route,
    TagsRoute,
    Unsupported,
    parse_route,
    resolve_name,
    split_target,
)

DIGEST = parse_digest("sha256:" + "a" * 64)
UPSTREAMS = frozenset({"docker.io", "ghcr.io", "r.test:5000"})


def route(target: str, method: str = "GET") -> Route:
    return parse_route(method, *split_target(target))


def resolve(path_name: str, ns: str | None = None) -> tuple[ImageName, bool]:
    return resolve_name(path_name, ns, upstreams=UPSTREAMS, default="docker.io")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("/v2/?x=1", Ping()),
        ("http://mirror:5000/v2/", Ping()),
        ("/v2/a/b/manifests/1", ManifestRoute("a/b", "1")),
        (f"/v2/a/manifests/{DIGEST}", ManifestRoute("a", DIGEST)),
        ("/v2/manifests/manifests/manifests", ManifestRoute("manifests", "manifests")),
        ("/v2/a/blobs/uploads/manifests/1", ManifestRoute("a/blobs/uploads", "1")),
        (f"/v2/a/blobs/{DIGEST}", BlobRoute("a", DIGEST)),
        ("/v2/a/blobs/sha256%3A" + "a" * 64, BlobRoute("a", DIGEST)),
        ("/v2/%61/manifests/1", ManifestRoute("a", "1")),
        ("/v2/a/tags/list", TagsRoute("a", None, "")),
        ("/v2/a/tags/list?n=5&last=v1", TagsRoute("a", 5, "n=5&last=v1")),
        ("/v2/a/tags/list?n%73=r.test&n=5&t=a%2Fb+c==", TagsRoute("a", 5, "n=5&t=a%2Fb+c==")),
        ("/v2/a/tags/list?last=", TagsRoute("a", None, "last=")),
        (f"/v2/a/referrers/{DIGEST}", ReferrersRoute("a", DIGEST, None)),
        (f"/v2/a/referrers/{DIGEST}?artifactType=a/b", ReferrersRoute("a", DIGEST, "a/b")),
        ("/v2/a/blobs/uploads/", Unsupported()),
    ],
)
def test_routes(target: str, expected: Route) -> None:
    assert route(target) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "get"])
def test_other_methods_are_unsupported(method: str) -> None:
    assert route("/v2/a/manifests/1", method) == Unsupported()


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v2/a/manifests/sha256:1", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/a%2Fb/manifests/1", 400, "NAME_INVALID"),
        ("/v2/\udcff/manifests/1", 400, "NAME_INVALID"),
        ("/v2/%ff/manifests/1", 400, "NAME_INVALID"),
        ("/v2/a/manifests/-1", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/tags/list?n=-1", 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?n=" + "9" * 10, 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?n=\u0664", 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?last=a\tb", 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?last=a#b", 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?last=\u00e9", 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?last=" + "a" * QUERY_LENGTH_MAX, 400, "UNSUPPORTED"),
        (f"/v2/a/referrers/{DIGEST}?artifactType=%0D%0Ax/y", 400, "UNSUPPORTED"),
        ("/v2/a/manifests/1?ns=a&ns=b", 400, "NAME_INVALID"),
        ("/v2/a/manifests/1?ns=%ff", 400, "NAME_INVALID"),
        ("/v2/a/manifests/1?" + "&".join(f"k{i}=1" for i in range(17)), 400, "NAME_INVALID"),
        ("/v2/" + "a" * TARGET_LENGTH_MAX, 414, "NAME_INVALID"),
        ("/v2/blobs/" + DIGEST, 404, "UNSUPPORTED"),
        ("/v1/a/manifests/1", 404, "UNSUPPORTED"),
        ("*", 404, "UNSUPPORTED"),
    ],
)
def test_what_is_refused(target: str, status: int, code: str) -> None:
    with pytest.raises(RegistryError) as refused:
        route(target)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_a_manifest_route_knows_whether_it_is_by_digest() -> None:
    assert ManifestRoute("a", DIGEST).by_digest
    assert not ManifestRoute("a", "1").by_digest


@pytest.mark.parametrize(
    ("path_name", "ns", "name", "sticky"),
    [
        ("a/b", None, ImageName("docker.io", "a/b"), False),
        ("app", None, ImageName("docker.io", "library/app"), False),
        ("a/b", "GHCR.io:443", ImageName("ghcr.io", "a/b"), False),
        ("app", "ghcr.io", ImageName("ghcr.io", "app"), False),
        ("ghcr.io/a/b", None, ImageName("ghcr.io", "a/b"), True),
        ("r.test:5000/a", None, ImageName("r.test:5000", "a"), True),
        ("r.test_5000/a", None, ImageName("r.test:5000", "a"), True),
        ("r.test_5000/a", "r.test:5000", ImageName("r.test:5000", "a"), False),
        ("r_5000/a", None, ImageName("docker.io", "r_5000/a"), False),
        ("docker.io/app", None, ImageName("docker.io", "library/app"), True),
        ("ghcr.io/a/b", "ghcr.io", ImageName("ghcr.io", "a/b"), False),
        ("docker.io/app", "registry-1.docker.io", ImageName("docker.io", "library/app"), False),
        ("ghcr.io/my.project/b", "ghcr.io", ImageName("ghcr.io", "my.project/b"), False),
    ],
)
def test_names(path_name: str, ns: str | None, name: ImageName, sticky: bool) -> None:
    assert resolve(path_name, ns) == (name, sticky)


@pytest.mark.parametrize(
    ("path_name", "ns", "status"),
    [
        ("ghcr.io/a", "docker.io", 400),
        ("a", "no host", 400),
        ("a", "", 400),
        ("A", None, 400),
        ("..", None, 400),
        ("../a", None, 400),
        ("ghcr.io/", None, 400),
        ("a" * 256, None, 400),
        ("a", "evil.test", 404),
        ("evil.test/a", None, 404),
        ("127.0.0.1/a", None, 404),
        ("localhost/a", None, 404),
        ("ghcr.io:80/a", None, 404),
    ],
)
def test_names_that_are_refused(path_name: str, ns: str | None, status: int) -> None:
    with pytest.raises(RegistryError) as refused:
        resolve(path_name, ns)
    assert refused.value.status == status
    assert refused.value.reason is (ErrorReason.NOT_LISTED if status == 404 else None)


@given(
    st.sampled_from(["GET", "HEAD", "PUT"]),
    st.text(max_size=40),
    st.sampled_from(["/manifests/1", f"/blobs/{DIGEST}", "/tags/list?n=1", ""]),
)
@example("GET", "%2e%2e/%2e%2e", "/manifests/1")
@example("GET", "a\x00", "/manifests/1")
def test_any_target_is_a_clean_name_or_a_4xx(method: str, middle: str, end: str) -> None:
    refusal: RegistryError | None = None
    try:
        found = parse_route(method, *split_target(f"/v2/{middle}{end}"))
        if isinstance(found, Ping | Unsupported):
            return
        name, _ = resolve(found.path_name)
    except RegistryError as error:
        refusal = error
    if refusal is not None:
        assert 400 <= refusal.status < 500
    else:
        assert valid_repository(name.repository)
        assert name.upstream in UPSTREAMS
