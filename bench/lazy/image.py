"""The images that are started: Python with numpy and pandas among 440 MB of packages, and one file.

Made once, from Debian's and Python's own packages, and kept in `build/bench-lazy`: a few minutes.
The layers are what anybody's build makes: GNU's form of tar, gzip at its default level, no label.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.swarm.images import PlainImage
from tests.e2e.harness.image import OCI, Blob
from tests.e2e.harness.processes import run

CACHE: Final = Path("build/bench-lazy")
SUITE: Final = "bookworm"
"""Its Python is 3.11."""
SITE: Final = "usr/local/lib/python3.11/dist-packages"
# One layer each, above Debian's. Versions are pinned so that figures of different days compare.
LAYERS: Final = (
    (
        "numpy==1.26.4",
        "pandas==2.2.2",
        "python-dateutil==2.9.0.post0",
        "pytz==2024.1",
        "six==1.16.0",
        "tzdata==2024.1",
    ),
    ("scipy==1.13.1", "scikit-learn==1.5.0", "joblib==1.4.2", "threadpoolctl==3.5.0"),
    ("pyarrow==16.1.0", "polars==0.20.31"),
    ("llvmlite==0.42.0", "numba==0.59.1", "duckdb==1.0.0"),
    ("catboost==1.2.5", "matplotlib==3.9.0", "pillow==10.3.0"),
)
BIG_BYTES: Final = 1_000_000_000
BIG_FILE: Final = "data/big"
DEBOOTSTRAP_S: Final = 900.0
PIECE: Final = 1 << 20


def python_image() -> PlainImage:
    """About 440 MB of gzip in six layers."""
    return _made("python", [_debian, *(partial(_packages, packages) for packages in LAYERS)])


def big_image() -> PlainImage:
    """One layer with a file of 1 GB that no compression makes smaller."""
    return _made("big", [_big_file])


def _made(name: str, fills: Sequence[Callable[[Path], None]]) -> PlainImage:
    layout = CACHE / name
    if not (layout / "image.json").exists():
        print(f"making the image {name!r}, once", file=sys.stderr, flush=True)
        part = CACHE / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        blobs = part / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        _write_image(part, [_layer(fill, part, blobs) for fill in fills])
        shutil.rmtree(layout, ignore_errors=True)
        part.rename(layout)
    told = json.loads((layout / "image.json").read_text())
    manifest, config, *layers = (Blob(*blob) for blob in told)
    return PlainImage(
        layout, index=manifest, manifest=manifest, config=config, layers=tuple(layers)
    )


def _layer(fill: Callable[[Path], None], part: Path, blobs: Path) -> tuple[Blob, str]:
    """Return the layer of what `fill` puts into a directory, and its diff id."""
    tree, archive, packed = part / "tree", part / "layer.tar", part / "layer.tar.gz"
    tree.mkdir()
    fill(tree)
    packing = ["tar", "--sort=name", "--numeric-owner", "--format=gnu", f"--directory={tree}"]
    run([*packing, "-cf", str(archive), "."], timeout_s=300)
    shutil.rmtree(tree)
    diff_id = _sha256(archive)
    with packed.open("wb") as out:
        subprocess.run(["gzip", "-n", "-c", str(archive)], stdout=out, check=True)
    archive.unlink()
    digest = _sha256(packed)
    blob = Blob(f"sha256:{digest}", packed.stat().st_size)
    packed.rename(blobs / digest)
    return blob, f"sha256:{diff_id}"


def _write_image(part: Path, layers: Sequence[tuple[Blob, str]]) -> None:
    def put(document: dict[str, object]) -> Blob:
        body = json.dumps(document).encode()
        digest = hashlib.sha256(body).hexdigest()
        (part / "blobs" / "sha256" / digest).write_bytes(body)
        return Blob(f"sha256:{digest}", len(body))

    def described(media_type: str, blob: Blob) -> dict[str, object]:
        return {"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes}

    rootfs = {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}
    config = put({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
    manifest = put(
        {
            "schemaVersion": 2,
            "mediaType": OCI.manifest,
            "config": described(OCI.config, config),
            "layers": [described(OCI.layer, blob) for blob, _ in layers],
        }
    )
    blobs = [manifest, config, *(blob for blob, _ in layers)]
    told = [(blob.digest, blob.size_bytes) for blob in blobs]
    (part / "image.json").write_text(json.dumps(told))


def _debian(directory: Path) -> None:
    options = ["--variant=minbase", "--include=python3"]
    run(["debootstrap", *options, SUITE, str(directory)], timeout_s=DEBOOTSTRAP_S)
    shutil.rmtree(directory / "var" / "cache" / "apt")
    for entry in (directory / "dev").iterdir():
        entry.unlink() if not entry.is_dir() or entry.is_symlink() else shutil.rmtree(entry)


def _packages(packages: Sequence[str], directory: Path) -> None:
    """Unpack wheels as pip does, compiled; no build, no script, nothing but what is named."""
    wheels = CACHE / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    downloads = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    downloads += ["--only-binary=:all:", "--python-version=3.11", f"--dest={wheels}"]
    downloads += [f"--platform=manylinux{kind}_x86_64" for kind in ("2014", "_2_17", "_2_24")]
    site = directory / SITE
    site.mkdir(parents=True)
    for package in packages:
        run([*downloads, package], timeout_s=600)
        name, _, version = package.partition("==")
        (wheel,) = wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    compiled = [sys.executable, "-m", "compileall", "-q", "-s", str(directory), "-p", "/"]
    subprocess.run([*compiled, str(site)], check=False)  # some packages ship what does not compile


def _big_file(directory: Path) -> None:
    path = directory / BIG_FILE
    path.parent.mkdir()
    with path.open("wb") as file:
        for _ in range(BIG_BYTES // PIECE):
            file.write(os.urandom(PIECE))
        file.write(os.urandom(BIG_BYTES % PIECE))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
