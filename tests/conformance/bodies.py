"""Manifests of all shapes that pass through an endpoint (statement 8)."""

from __future__ import annotations

import json
from typing import Any, Final

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
)

CONFIG: Final = b'{"architecture":"amd64","os":"linux"}'


def _dump(document: dict[str, Any]) -> bytes:
    # Indented like what tools push: a proxy that decoded and encoded it again would be found out.
    return json.dumps(document, indent=3).encode()


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def image(*layers: bytes, media_type: str = OCI_MANIFEST, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(CONFIG, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(x, "application/vnd.oci.image.layer.v1.tar") for x in layers],
        **more,
    }
    return _dump(document)


def index(*children: bytes, media_type: str = OCI_INDEX, child_type: str = OCI_MANIFEST) -> bytes:
    platform = {"os": "linux", "architecture": "amd64"}
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [descriptor(x, child_type, platform=platform) for x in children],
    }
    return _dump(document)


def artifact() -> bytes:
    blob = descriptor(b"sbom", "text/plain")
    return _dump({"mediaType": OCI_ARTIFACT, "artifactType": "a/sbom", "blobs": [blob]})


SHAPES: Final = {
    "docker image": (image(b"l", media_type=DOCKER_MANIFEST), DOCKER_MANIFEST),
    "docker list": (
        index(image(b"l", media_type=DOCKER_MANIFEST), media_type=DOCKER_LIST),
        DOCKER_LIST,
    ),
    "oci image": (image(b"l"), OCI_MANIFEST),
    "oci index": (index(image(b"l")), OCI_INDEX),
    "nested index": (index(index(image(b"l")), child_type=OCI_INDEX), OCI_INDEX),
    "artifact": (artifact(), OCI_ARTIFACT),
    "subject": (image(b"l", subject=descriptor(image(b"s"), OCI_MANIFEST)), OCI_MANIFEST),
    "no layers": (image(), OCI_MANIFEST),
}
