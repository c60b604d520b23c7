"""A realistic image made from a seed: several layers, gzip and plain tar, in OCI form."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from p2pdist.model.ids import Digest, digest_of

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
GZIP_LAYER_TYPE: Final = LAYER_TYPE + "+gzip"

# Share of the image's bytes and whether the layer is compressed: a base, an interpreter, packages,
# a model file that does not shrink, the application, its settings.
LAYERS: Final = (
    ("base", 0.30, True),
    ("runtime", 0.25, True),
    ("packages", 0.20, True),
    ("assets", 0.18, False),
    ("app", 0.069, True),
    ("settings", 0.001, True),
)
FILE_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class DemoImage:
    manifest: bytes
    manifest_digest: Digest
    blobs: dict[Digest, Path]
    """Config and layers, as files named by their digest."""
    size_bytes: int
    """Config and layers as they are transferred."""


def make_image(directory: Path, size_bytes: int, seed: int = 1) -> DemoImage:
    """Write the blobs of an image of about `size_bytes` (compressed); blocking, uses threads."""
    directory.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(
                lambda item: _layer(directory, item[1], size_bytes, seed + item[0]),
                enumerate(LAYERS),
            )
        )
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/app/run"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]},
        }
    ).encode()
    config_digest = digest_of(config)
    (directory / config_digest.partition(":")[2]).write_bytes(config)
    descriptors = [descriptor for descriptor, _ in made]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
            "layers": descriptors,
        }
    ).encode()
    digests = [config_digest, *(Digest(d["digest"]) for d in descriptors)]
    blobs = {digest: directory / digest.partition(":")[2] for digest in digests}
    total = sum(path.stat().st_size for path in blobs.values())
    return DemoImage(manifest, digest_of(manifest), blobs, total)


def _layer(
    directory: Path, layer: tuple[str, float, bool], size_bytes: int, seed: int
) -> tuple[dict[str, Any], str]:
    """Write one layer; return its descriptor and diff id."""
    name, share, compressed = layer
    tar = _tar(name, int(size_bytes * share), Random(seed))  # noqa: S311  # content, no secret
    diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    data = gzip.compress(tar, 1, mtime=0) if compressed else tar
    digest = digest_of(data)
    (directory / digest.partition(":")[2]).write_bytes(data)
    media_type = GZIP_LAYER_TYPE if compressed else LAYER_TYPE
    return {"mediaType": media_type, "digest": digest, "size": len(data)}, diff_id


def _tar(name: str, size_bytes: int, rng: Random) -> bytes:
    """A tar of files, half text and half bytes that do not shrink, with fixed times."""
    out = io.BytesIO()
    text = b"the quick brown fox jumps over the lazy dog; " * 64
    with tarfile.open(fileobj=out, mode="w") as tar:
        number = 0
        left = size_bytes
        while left > 0:
            hard = min(left, FILE_BYTES)
            content = rng.randbytes(hard) + text
            info = tarfile.TarInfo(f"{name}/{number // 64:03}/{number:05}.bin")
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
            left, number = left - hard, number + 1
    return out.getvalue()
