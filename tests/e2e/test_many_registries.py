"""Several registries behind one mirror: another format, empty blobs, a password of the proxy's."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.clients import Containerd, Podman, Skopeo
from tests.e2e.harness.image import OCI, REFERENCE, SCHEMA_2, Blob, Image, build_image
from tests.e2e.harness.lab import open_lab
from tests.e2e.harness.mirror import get
from tests.e2e.harness.p2p import LOOPBACK, PEER_MIRROR_URL, PEER_PORT, Daemon
from tests.e2e.harness.registry import PASSWORD, Registry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LAYER_BYTES: Final = (4_000_000, 200_000, 9_000_000)
PRIVATE: Final = "registry.test:5000"
"""A name with a port: it travels as `%3A` in `ns`, and as it is in a path."""
PUBLIC_REFERENCE: Final = f"docker.io/{REFERENCE}"
PRIVATE_REFERENCE: Final = f"{PRIVATE}/team/tools/app:1"
EMPTY_REFERENCE: Final = f"{PRIVATE}/team/empty:1"


@dataclass(frozen=True, slots=True)
class Site:
    """Two registries, and hosts whose clients only know their mirror."""

    public: Image
    private: Image
    registry: Registry
    proxy: Daemon
    podman: Podman
    containerd: Containerd
    skopeo: Skopeo
    peer: Daemon
    logs: list[Path]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    layouts = tmp_path_factory.mktemp("layouts")
    public = build_image(layouts / "public", layer_bytes=LAYER_BYTES, seed=31)
    private = build_image(layouts / "private", layer_bytes=LAYER_BYTES, seed=32, types=SCHEMA_2)
    with open_lab() as lab:
        hub = lab.registry(lab.host("hub"), layouts / "hub")
        hub.push(public, REFERENCE)
        own = lab.registry(lab.host("own"), layouts / "own", private=True)
        own.push(private, "team/tools/app:1")
        own.push(_with_an_empty_layer(layouts / "empty", public), "team/empty:1")
        cluster = lab.cluster(lab.host("core"), hub, {PRIVATE: own})
        cluster.start_tracker()
        proxy = cluster.start_proxy()
        hosts = [lab.host(name) for name in ("p", "c", "s")]
        for host in hosts:
            host.blackhole(hub.host.address)
            host.blackhole(own.host.address)
        peers = [cluster.start_peer(host) for host in hosts]
        registries = {name: name for name in ("docker.io", PRIVATE)}
        yield Site(
            public,
            private,
            own,
            proxy,
            Podman(hosts[0], PEER_MIRROR_URL, lab.work, registries),
            lab.containerd(hosts[1], PEER_MIRROR_URL),
            Skopeo(hosts[2], PEER_MIRROR_URL, lab.work, registries),
            peers[0],
            lab.logs(),
        )
    shutil.rmtree(layouts)


def test_images_of_both_registries_arrive_at_the_same_time(site: Site) -> None:
    with ThreadPoolExecutor(max_workers=4) as together:
        pulls = [
            together.submit(client.pull, reference)
            for client in (site.podman, site.containerd)
            for reference in (PUBLIC_REFERENCE, PRIVATE_REFERENCE)
        ]
        configs = [pull.result().config for pull in pulls]

    assert configs == [site.public.config.digest, site.private.config.digest] * 2


def test_an_image_with_an_empty_layer_arrives(site: Site) -> None:
    """The zero-byte blob is its own proof, like every blob of one chunk."""
    pulled = site.skopeo.pull(EMPTY_REFERENCE)

    assert pulled.config == site.public.config.digest


def test_a_registry_that_is_not_on_the_list_is_refused(site: Site) -> None:
    path = "/v2/elsewhere.test/team/app/manifests/1"

    status, body = get(site.peer.host, LOOPBACK, PEER_PORT, path)

    (error,) = json.loads(body)["errors"]
    assert (status, error["code"], error["detail"]) == (404, "NAME_UNKNOWN", "not_listed")


def test_the_password_is_in_no_log(site: Site) -> None:
    served = [answer for answer in site.registry.served() if answer.status == 200]

    assert served, "the private registry was not asked"
    assert not [log.name for log in site.logs if PASSWORD.encode() in log.read_bytes()]


def _with_an_empty_layer(layout: Path, image: Image) -> Image:
    """A copy of `image` whose manifest of linux/amd64 names a layer of no bytes at the end.

    No runtime unpacks that; it is there because registries hold such images.
    """
    shutil.copytree(image.layout, layout)
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads(image.manifests()[image.manifest.digest][1])
    manifest["layers"].append({"mediaType": OCI.layer, "digest": _write(blobs, b""), "size": 0})
    body = json.dumps(manifest).encode()
    entry = {"mediaType": OCI.manifest, "digest": _write(blobs, body), "size": len(body)}
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": [entry]}
    text = json.dumps(index).encode()
    blob = Blob(_write(blobs, text), len(text))
    for unused in image.manifests():
        (blobs / unused.removeprefix("sha256:")).unlink()
    return replace(image, layout=layout, index=blob)


def _write(blobs: Path, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return f"sha256:{name}"
