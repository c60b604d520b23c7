"""Where a pulled image goes: an OCI layout or a `docker save` archive, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import zstandard

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.pulling.client import PulledImage
from p2pdist.cli.pulling.workspace import PLAIN_LAYER, naming
from p2pdist.errors import ConfigError
from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from p2pdist.process.tree import Tree, own_place

Kind = Literal["oci", "docker-archive"]
COPY_BYTES: Final = 1 << 20
# A layer that unpacks to more is a bomb; the largest real ones are below 100 GB.
UNPACKED_BYTES_MAX: Final = 200 << 30
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME: Final = "org.opencontainers.image.ref.name"
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Output:
    kind: Kind
    path: Path | None
    """None: standard output."""

    @property
    def directory(self) -> Path | None:
        """Where it will lie: files on their way to it are best there too."""
        return None if self.path is None else self.path.parent

    def check(self) -> None:
        """Raise CommandError for a place that cannot take the image, before anything is fetched."""
        if self.path is None:
            if sys.stdout.isatty():
                text = "an archive is nothing for a terminal"
                raise CommandError(text, Exit.USAGE, "pipe it on, or name a file instead of -")
            return
        place = _place(self.path)
        if self.kind == "oci":
            _check_layout(place)
        elif place.is_dir():
            raise CommandError(f"{self.path} is a directory, an archive is a file", Exit.USAGE)
        elif place.exists() and not place.is_file():
            raise CommandError(f"{self.path} is no plain file", Exit.USAGE)
        parent = place.parent
        if not parent.is_dir():
            raise CommandError(f"{parent} does not exist", Exit.USAGE, f"run: mkdir -p {parent}")

    def write(self, image: PulledImage, stop: threading.Event) -> None:
        """Blocking; ends early, and an archive not written, once `stop` is set. Raises
        CommandError, OSError."""
        if self.path is None:
            with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
                _fill_archive(archive, image, stop)
            sys.stdout.buffer.flush()
        elif self.kind == "oci":
            _write_layout(_place(self.path), image)
        else:
            place = _place(self.path)
            with (
                Tree(place.parent).replacing(place) as file,
                tarfile.open(fileobj=file, mode="w") as archive,
            ):
                _fill_archive(archive, image, stop)


def parse_output(text: str) -> Output:
    """Read `oci:DIR`, `docker-archive:FILE` or `docker-archive:-`, which is standard output; raise
    ValueError for anything else."""
    kind, colon, place = text.partition(":")
    if not colon or not place or kind not in ("oci", "docker-archive"):
        raise ValueError("expected oci:DIR or docker-archive:FILE")
    if place != "-":
        return Output("oci" if kind == "oci" else "docker-archive", Path(place))
    if kind == "oci":
        raise ValueError("an OCI layout is a directory; docker-archive:- is what goes to stdout")
    return Output("docker-archive", None)


def _place(path: Path) -> Path:
    try:
        return own_place(path)
    except ConfigError as error:
        raise CommandError(str(error), Exit.USAGE, error.hint) from None


# --- OCI layout -----------------------------------------------------------------------------------


def _check_layout(path: Path) -> None:
    if not path.exists():
        return
    if (path / "oci-layout").is_file():
        _index(Tree(path), path / "index.json")
        return
    if not path.is_dir() or any(path.iterdir()):
        raise CommandError(
            f"{path} is neither empty nor an OCI layout",
            Exit.USAGE,
            "choose a new directory, or one that `p2pdist pull` or skopeo made",
        )


def _write_layout(path: Path, image: PulledImage) -> None:
    """Add the image; blobs first, the index last, so that a cut leaves the old layout."""
    tree = Tree(path)
    index = _index(tree, path / "index.json")  # before anything changes
    for blob in image.blobs:
        tree.adopt(image.path(blob.digest), _blob_path(path, blob.digest))
    _replace(tree, _blob_path(path, image.digest), image.body)
    _replace(tree, path / "oci-layout", LAYOUT)
    name = image.reference.tag or "latest"
    index["manifests"] = [
        entry for entry in index["manifests"] if entry.get("annotations", {}).get(REF_NAME) != name
    ]
    index["manifests"].append(_entry_of(tree, path, image) | {"annotations": {REF_NAME: name}})
    _replace(tree, path / "index.json", json.dumps(index).encode())


def _blob_path(layout: Path, digest: str) -> Path:
    algorithm, _, encoded = digest.partition(":")
    return layout / "blobs" / algorithm / encoded


def _index(tree: Tree, path: Path) -> dict[str, Any]:
    """The layout's list of images; an empty one where there is none."""
    data = tree.read(path)
    if data is None:
        return {"schemaVersion": 2, "manifests": []}
    try:
        index = json.loads(data)
    except (ValueError, RecursionError):
        index = None
    entries = index.get("manifests", []) if isinstance(index, dict) else None
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise CommandError(f"{path} is no index of an OCI layout", Exit.USAGE)
    return {**index, "manifests": entries}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("annotations", {}), dict)


def _entry_of(tree: Tree, layout: Path, image: PulledImage) -> dict[str, Any]:
    """What an index says of the image.

    By a name containers/image (skopeo 1.9, `oci/layout/oci_transport.go`) finds OCI's own types
    only. A manifest of another type keeps its bytes, below an index of its own that is found.
    """
    entry = _descriptor(image.info.media_type, image.body)
    if image.info.media_type == OCI_MANIFEST:
        return entry
    above = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    body = json.dumps(above).encode()
    _replace(tree, _blob_path(layout, digest_of(body)), body)
    return _descriptor(OCI_INDEX, body)


def _descriptor(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}


def _replace(tree: Tree, path: Path, data: bytes) -> None:
    with tree.replacing(path) as file:
        file.write(data)


# --- docker save archive --------------------------------------------------------------------------


def _fill_archive(archive: tarfile.TarFile, image: PulledImage, stop: threading.Event) -> None:
    """Write what `docker load` reads: config, plain layers named by their hash, manifest.json."""
    config = image.info.config
    if config is None:
        raise CommandError("this is no container image: it has no config", Exit.USAGE)
    config_name = f"{config.digest.partition(':')[2]}.json"
    _add(archive, config_name, image.path(config.digest).read_bytes())
    layers = [_add_layer(archive, image, layer, stop) for layer in image.info.layers]
    reference = image.reference
    tags = [f"{reference.name}:{reference.tag}"] if reference.tag else []
    entry = {"Config": config_name, "RepoTags": tags, "Layers": layers}
    _add(archive, "manifest.json", json.dumps([entry]).encode())


def _add_layer(
    archive: tarfile.TarFile, image: PulledImage, layer: Descriptor, stop: threading.Event
) -> str:
    plain = image.directory / PLAIN_LAYER
    whole = hashlib.sha256()
    with (
        naming(image.directory.parent),
        image.path(layer.digest).open("rb") as packed,
        plain.open("xb") as out,
    ):
        size = 0
        with _unpacked(packed) as source:
            while data := source.read(COPY_BYTES):
                if stop.is_set():
                    raise CommandError("stopped", Exit.INTERRUPTED)
                size += len(data)
                if size > UNPACKED_BYTES_MAX:
                    raise CommandError(f"{layer.digest} unpacks without end", Exit.INTEGRITY)
                whole.update(data)
                out.write(data)
    name = f"{whole.hexdigest()}/layer.tar"
    if name not in archive.getnames():
        with plain.open("rb") as file:
            archive.addfile(_entry(name, size), file)
    plain.unlink()
    return name


def _unpacked(packed: IO[bytes]) -> IO[bytes]:
    """The plain tar in a layer, by what its bytes say it is."""
    magic = packed.read(4)
    packed.seek(0)
    if magic.startswith(_GZIP):
        return gzip.open(packed)  # type: ignore[return-value]  # a binary file in all but name
    if magic == _ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    return packed


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_entry(name, len(data)), io.BytesIO(data))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Without time and owner, so that one image gives one archive."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
