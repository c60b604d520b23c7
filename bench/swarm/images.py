"""Images of incompressible layers, and the torrent of the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.swarm.cases import MIB
from tests.e2e.harness.image import OCI, Blob, Image

TORRENT_PIECE_BYTES = MIB


@dataclass(frozen=True, slots=True)
class PlainImage(Image):
    """One platform, no index: `index` is the manifest itself."""

    def manifests(self) -> dict[str, tuple[str, bytes]]:
        return {self.manifest.digest: (OCI.manifest, blob_path(self, self.manifest).read_bytes())}


def blob_path(image: Image, blob: Blob) -> Path:
    return image.layout / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")


def make_image(layers_mib: Sequence[float], layout: Path) -> PlainImage:
    """Write an image into `layout`; the same sizes give the same bytes."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    rng = Random(repr(tuple(layers_mib)))

    def put(pieces: Sequence[bytes]) -> Blob:
        hasher = hashlib.sha256()
        for piece in pieces:
            hasher.update(piece)
        with (blobs / hasher.hexdigest()).open("wb") as file:
            file.writelines(pieces)
        return Blob(f"sha256:{hasher.hexdigest()}", sum(map(len, pieces)))

    def layer(mib: float) -> Blob:
        pieces = [rng.randbytes(MIB) for _ in range(int(mib))]
        return put([*pieces, rng.randbytes(round(mib % 1 * MIB))])

    layers = tuple(map(layer, layers_mib))
    rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    described = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
    config = put([json.dumps(described).encode()])
    manifest = put(
        [
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": OCI.manifest,
                    "config": _descriptor(OCI.config, config),
                    "layers": [_descriptor(OCI.layer, layer) for layer in layers],
                }
            ).encode()
        ]
    )
    return PlainImage(layout, index=manifest, manifest=manifest, config=config, layers=layers)


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes}


def make_torrent(image: Image, announce: str) -> bytes:
    """A torrent of the layers: one file as itself, several as the directory `image`."""
    paths = [blob_path(image, layer) for layer in image.layers]
    pieces, rest = [], b""
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(TORRENT_PIECE_BYTES - len(rest)):
                rest += block
                if len(rest) == TORRENT_PIECE_BYTES:
                    pieces.append(hashlib.sha1(rest, usedforsecurity=False).digest())
                    rest = b""
    if rest:
        pieces.append(hashlib.sha1(rest, usedforsecurity=False).digest())
    info: dict[str, object] = {
        "name": paths[0].name if len(paths) == 1 else "image",
        "piece length": TORRENT_PIECE_BYTES,
        "pieces": b"".join(pieces),
        "private": 1,
    }
    if len(paths) == 1:
        info["length"] = paths[0].stat().st_size
    else:
        info["files"] = [{"length": p.stat().st_size, "path": [p.name]} for p in paths]
    return bencode({"announce": announce, "info": info})


def bencode(value: object) -> bytes:
    """BEP 3's encoding of the types that a torrent is made of."""
    match value:
        case int():
            return b"i%de" % value
        case str():
            return bencode(value.encode())
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
        case dict():
            return b"d" + b"".join(bencode(k) + bencode(value[k]) for k in sorted(value)) + b"e"
        case _:
            raise TypeError(type(value))
