"""What registries really send, and what nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.manifest import DOCKER_MANIFEST, OCI_INDEX
from p2pdist.oci.reference import canonical_upstream, valid_repository, valid_tag
from p2pdist.registry_proxy.core.notifications import KINDS, Push, parse_notification

DIGEST = "sha256:" + "ab" * 32


def event(**changes: Any) -> dict[str, Any]:
    """As docker-registry 2.8 sends it for `docker push reg.corp:5000/team/app:1`."""
    target = {
        "mediaType": DOCKER_MANIFEST,
        "size": 528,
        "digest": DIGEST,
        "length": 528,
        "repository": "team/app",
        "url": f"http://reg.corp:5000/v2/team/app/manifests/{DIGEST}",
        "tag": "1",
    } | changes.pop("target", {})
    return {
        "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
        "timestamp": "2026-03-09T14:44:26.402973972-08:00",
        "action": "push",
        "target": target,
        "request": {
            "id": "6df2",
            "addr": "192.168.64.11:42961",
            "host": "reg.corp:5000",
            "method": "PUT",
            "useragent": "curl/7.38.0",
        },
        "actor": {},
        "source": {"addr": "xtal.local:5000", "instanceID": "a53db899"},
    } | changes


HARBOR = {
    "type": "PUSH_ARTIFACT",
    "occur_at": 1680501893,
    "operator": "harbor-jobservice",
    "event_data": {
        "resources": [{"digest": DIGEST, "tag": "v1", "resource_url": "harbor.corp/prod/web:v1"}],
        "repository": {
            "date_created": 1677053165,
            "name": "web",
            "namespace": "prod",
            "repo_full_name": "prod/web",
            "repo_type": "private",
        },
    },
}
HUB = {
    "callback_url": "https://registry.hub.docker.com/u/svendowideit/testhook/hook/2141b5bi5i5b02bec/",
    "push_data": {"pushed_at": 1417566161, "pusher": "trustedbuilder", "tag": "latest"},
    "repository": {
        "is_private": True,
        "name": "testhook",
        "namespace": "svendowideit",
        "repo_name": "svendowideit/testhook",
        "status": "Active",
    },
}
QUAY = {
    "name": "repository",
    "repository": "mynamespace/repository",
    "namespace": "mynamespace",
    "docker_url": "quay.io/mynamespace/repository",
    "homepage": "https://quay.io/repository/mynamespace/repository",
    "updated_tags": ["latest"],
}

ONE = Push("reg.corp:5000", "team/app", "1")
SAMPLES: list[tuple[Any, str, list[Push]]] = [
    ({"events": [event()]}, "distribution", [ONE]),
    ({"events": [event(target={"mediaType": OCI_INDEX})]}, "distribution", [ONE]),
    ({"events": [event(), event(id="another")]}, "distribution", [ONE]),
    ({"events": [event(action=a) for a in ("pull", "delete", "mount")]}, "distribution", []),
    ({"events": [event(target={"tag": ""})]}, "distribution", []),
    (
        {"events": [event(target={"mediaType": "application/octet-stream"})]},
        "distribution",
        [],
    ),
    ({"events": []}, "distribution", []),
    (event(request={"host": "corp.azurecr.io"}), "acr", [Push("corp.azurecr.io", "team/app", "1")]),
    (HARBOR, "harbor", [Push("harbor.corp", "prod/web", "v1")]),
    (HARBOR | {"type": "PULL_ARTIFACT"}, "harbor", []),
    (HUB, "dockerhub", [Push("docker.io", "svendowideit/testhook", "latest")]),
    (QUAY, "quay", [Push("quay.io", "mynamespace/repository", "latest")]),
    (
        QUAY | {"updated_tags": {"a": "id1", "b": "id2"}},
        "quay",
        [Push("quay.io", "mynamespace/repository", tag) for tag in "ab"],
    ),
    ({"zen": "Keep it logically awesome."}, "unknown", []),
]


@pytest.mark.parametrize(("document", "kind", "pushes"), SAMPLES)
def test_samples(document: Any, kind: str, pushes: list[Push]) -> None:
    found = parse_notification(json.dumps(document).encode())

    assert (found.kind, list(found.pushes)) == (kind, pushes)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        parse_notification(body)


@pytest.mark.parametrize("repository", ["../etc", "Team/App", "a" * 300, "", 7, None, ["x"]])
def test_a_repository_that_is_none_is_left_out(repository: object) -> None:
    body = json.dumps({"events": [event(target={"repository": repository})]}).encode()

    assert parse_notification(body).pushes == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "events",
                    "target",
                    "action",
                    "request",
                    "host",
                    "tag",
                    "repository",
                    "mediaType",
                    "event_data",
                    "resources",
                    "type",
                    "push_data",
                    "docker_url",
                    "updated_tags",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


def check(body: bytes) -> None:
    try:
        found = parse_notification(body)
    except ValueError:
        return
    assert found.kind in KINDS
    for push in found.pushes:
        assert canonical_upstream(push.host) == push.host
        assert valid_repository(push.repository)
        assert valid_tag(push.tag)


@given(json_values)
def test_any_json_is_taken_or_refused(document: object) -> None:
    check(json.dumps(document).encode())


@given(st.sampled_from([s[0] for s in SAMPLES]), st.data())
def test_a_field_of_a_sample_may_be_anything(sample: Any, data: st.DataObject) -> None:
    document = json.loads(json.dumps(sample))
    place = document
    while isinstance(place, (dict, list)) and place:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
    check(json.dumps(document).encode())
