"""Repositories that say what is not so of blobs that others have."""

from __future__ import annotations

import json

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import OCI_MANIFEST
from tests.fakes.registry import FakeRegistry

EVIL = "mallory/evil"
CONFIG = b"{}"


def add_lying_image(registry: FakeRegistry, layer: bytes, size: int) -> None:
    """`mallory/evil:1` has `layer`, mounted from elsewhere, and calls it `size` bytes long.

    Registries compare no sizes.
    """
    for blob in (CONFIG, layer):
        registry.add_blob(EVIL, blob)
    registry.add_manifest(EVIL, lying_manifest(digest_of(layer), size), tag="1")


def lying_manifest(digest: Digest, size: int) -> bytes:
    config = {"mediaType": "application/x", "digest": digest_of(CONFIG), "size": len(CONFIG)}
    layers = [{"mediaType": "application/x", "digest": digest, "size": size}]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(document).encode()
