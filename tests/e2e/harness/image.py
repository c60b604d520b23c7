"""A container image that Docker can run, as an OCI layout, made without any base image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """What the parts of an image are called in one of the two formats."""

    index: str
    manifest: str
    config: str
    layer: str


OCI: Final = MediaTypes(
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)
SCHEMA_2: Final = MediaTypes(
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
REPOSITORY: Final = "library/app"
REFERENCE: Final = f"{REPOSITORY}:1"
GREETING: Final = "hello from p2pdist"
# 300 MB in six layers of unlike sizes, as images have; Docker pulls three at a time.
LAYER_BYTES: Final = (100_000_000, 20_000_000, 80_000_000, 60_000_000, 30_000_000, 10_000_000)
SEED: Final = 20
# What the other platform has: no client of the lab asks for it.
FOREIGN_LAYER_BYTES: Final = (1_000_000,)


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image for two platforms; its blobs lie in `layout/blobs/sha256`.

    Manifest, config and layers are those of linux/amd64.
    """

    layout: Path
    index: Blob
    manifest: Blob
    config: Blob
    """Its digest is what Docker shows as the image ID."""
    layers: tuple[Blob, ...]

    def manifests(self) -> dict[str, tuple[str, bytes]]:
        """Media type and bytes by digest: those of the platforms first, then the index."""
        index = self._read(self.index.digest)
        described = json.loads(index)
        found = {
            m["digest"]: (m["mediaType"], self._read(m["digest"])) for m in described["manifests"]
        }
        return {**found, self.index.digest: (described["mediaType"], index)}

    def _read(self, digest: str) -> bytes:
        return (self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    @property
    def payload_bytes(self) -> int:
        """What one pull transfers: index, manifest, config and layers."""
        blobs = (self.index, self.manifest, self.config, *self.layers)
        return sum(blob.size_bytes for blob in blobs)

    @property
    def largest_layer(self) -> Blob:
        return max(self.layers, key=lambda blob: blob.size_bytes)


def build_image(
    layout: Path,
    *,
    layer_bytes: Sequence[int] = LAYER_BYTES,
    seed: int = SEED,
    types: MediaTypes = OCI,
) -> Image:
    """Write an image of incompressible content to `layout`; its command prints GREETING."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    rng = Random(seed)
    manifest, config, layers = _build_platform(blobs, "amd64", layer_bytes, rng, types)
    foreign, _, _ = _build_platform(blobs, "arm64", FOREIGN_LAYER_BYTES, rng, types)
    index = _write(blobs, _index({"amd64": manifest, "arm64": foreign}, types))
    return Image(layout, index, manifest, config, tuple(layers))


def _build_platform(
    blobs: Path, architecture: str, layer_bytes: Sequence[int], rng: Random, types: MediaTypes
) -> tuple[Blob, Blob, list[Blob]]:
    """Write one platform's image; return its manifest, config and layers."""
    layers, diff_ids = [], []
    for number, size_bytes in enumerate(layer_bytes):
        files = {f"data/part-{number}": rng.randbytes(size_bytes)}
        if number == 0:
            files["hello"] = greeting_program(GREETING)
        tar = _tar(files)
        diff_ids.append(_digest(tar))
        # Level 0: the content does not shrink, and unpacking costs Docker as much either way.
        layers.append(_write(blobs, gzip.compress(tar, compresslevel=0, mtime=0)))
    config = _write(blobs, _config(architecture, diff_ids))
    return _write(blobs, _manifest(config, layers, types)), config, layers


def greeting_program(text: str) -> bytes:
    """Return a static x86-64 Linux executable that prints `text` and a newline, and exits with 0.

    Two system calls behind an ELF header: the lab needs neither a compiler nor a base image.
    """
    message = text.encode() + b"\n"
    code = (
        b"\xb8\x01\x00\x00\x00",  # mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00",  # mov edi, 1 (stdout)
        b"\x48\x8d\x35\x10\x00\x00\x00",  # lea rsi, [rip + 16]: the message, after the code
        b"\xba" + struct.pack("<I", len(message)),  # mov edx, length
        b"\x0f\x05",  # syscall
        b"\xb8\x3c\x00\x00\x00",  # mov eax, 60 (exit)
        b"\x31\xff",  # xor edi, edi
        b"\x0f\x05",  # syscall
    )
    return _executable(b"".join(code) + message)


def pausing_program() -> bytes:
    """Return one that does nothing until a signal ends it."""
    code = (
        b"\xb8\x22\x00\x00\x00",  # mov eax, 34 (pause)
        b"\x0f\x05",  # syscall
        b"\xeb\xf7",  # jmp to the first
    )
    return _executable(b"".join(code))


def exiting_program(code: int) -> bytes:
    """Return one that exits with `code`."""
    words = (
        b"\xb8\x3c\x00\x00\x00",  # mov eax, 60 (exit)
        b"\xbf" + struct.pack("<I", code),  # mov edi, code
        b"\x0f\x05",  # syscall
    )
    return _executable(b"".join(words))


def _executable(code: bytes) -> bytes:
    header_bytes, segment_bytes, base = 64, 56, 0x400000
    entry = base + header_bytes + segment_bytes
    total_bytes = header_bytes + segment_bytes + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    fields = (2, 0x3E, 1, entry, header_bytes, 0, 0, header_bytes, segment_bytes, 1, 0, 0, 0)
    header = ident + struct.pack("<HHIQQQIHHHHHH", *fields)
    readable_executable = 5
    segment = struct.pack(
        "<IIQQQQQQ", 1, readable_executable, 0, base, base, total_bytes, total_bytes, 0x1000
    )
    return header + segment + code


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _config(architecture: str, diff_ids: list[str]) -> bytes:
    return _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"layer {number}"} for number in range(len(diff_ids))],
        }
    )


def _manifest(config: Blob, layers: list[Blob], types: MediaTypes) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": types.manifest,
            "config": _descriptor(config, types.config),
            "layers": [_descriptor(layer, types.layer) for layer in layers],
        }
    )


def _index(manifests: Mapping[str, Blob], types: MediaTypes) -> bytes:
    entries = [
        {**_descriptor(blob, types.manifest), "platform": {"architecture": name, "os": "linux"}}
        for name, blob in manifests.items()
    ]
    return _json({"schemaVersion": 2, "mediaType": types.index, "manifests": entries})


def _write(blobs: Path, content: bytes) -> Blob:
    digest = _digest(content)
    (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    return Blob(digest, len(content))


def _descriptor(blob: Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
