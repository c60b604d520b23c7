"""Three images as people build them: Debian, Python in layers on it, tools that come and go.

Made once with debootstrap and buildah, and kept in `build/equality`; `make clean` deletes them.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.e2e.harness.processes import run
from tests.e2e.streaming.unpackers import Layer
from tests.streaming.archives import archive, device

CACHE: Final = Path("build/equality").resolve()
SUITE: Final = "bookworm"
MINUTES_MAX_S: Final = 1200.0
# A build that fails leaves its mounts.
_CLEAR: Final = (
    'grep -F " $1/" /proc/mounts | cut -d" " -f2 | sort -r | xargs -r umount -l; rm -rf "$1"'
)
_APT: Final = "apt-get -qq update && apt-get install -y -qq --no-install-recommends"
STEPS: Final[dict[str, Sequence[str]]] = {
    "debian": (),
    "python": (
        f"{_APT} python3-numpy",
        f"{_APT} python3-pandas && rm -rf /var/lib/apt/lists",
        "useradd --uid 1234 app && mkdir /srv/app && chown app /srv/app && chmod 2770 /srv/app",
    ),
    "tools": (
        f"{_APT} git perl iputils-ping libcap2-bin at sudo",
        "setcap cap_net_bind_service=+ep /usr/bin/perl && ln /usr/bin/perl /usr/local/bin/pearl",
        "apt-get purge -y -qq at && rm -rf /usr/share/doc /var/lib/apt/lists/*",
        "rm -rf /usr/share/man && mkdir /usr/share/man && touch /usr/share/man/anew",
        "mkfifo -m 600 /srv/pipe && chown 3000000:4000000 /srv/pipe",
        "chmod 711 /etc/apt && touch -d 1999-12-31T23:59:59.123456789Z /etc/hostname.old",
    ),
}
"""The commands of each image, a layer each, on Debian's."""


def layers_of(name: str) -> list[Layer]:
    """From the lowest up. Raises LabError."""
    layout = CACHE / name
    if not (layout / "index.json").exists():
        _build(name, layout)
    blobs = layout / "blobs"

    def read(digest: str) -> bytes:
        return (blobs / digest.replace(":", "/")).read_bytes()

    (index,) = json.loads((layout / "index.json").read_text())["manifests"]
    packed = [read(layer["digest"]) for layer in json.loads(read(index["digest"]))["layers"]]
    return [Layer(gzip.decompress(blob), blob) for blob in packed]


def _build(name: str, layout: Path) -> None:
    work = CACHE / f"{name}.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.link(_debian(), work / "debian.tar")
    (work / "devices.tar").write_bytes(archive(device("srv/disk", 259, 70_000)))
    lines = ["FROM scratch", "ADD debian.tar /", *(f"RUN {step}" for step in STEPS[name])]
    lines += ["ADD devices.tar /"] if name == "tools" else []  # no RUN may make one
    (work / "Containerfile").write_text("\n".join(lines) + "\n")
    store = ["--root", str(work / "root"), "--runroot", str(work / "run")]
    buildah = ["buildah", *store, "--storage-driver", "overlay"]
    how = ["--layers", "--isolation", "chroot", "--network", "host", "--format", "oci"]
    try:
        run([*buildah, "build", *how, "-t", name, str(work)], timeout_s=MINUTES_MAX_S)
        run([*buildah, "push", name, f"oci:{work / 'layout'}:1"], timeout_s=MINUTES_MAX_S)
        shutil.rmtree(layout, ignore_errors=True)
        (work / "layout").rename(layout)
    finally:
        run(["sh", "-c", _CLEAR, "sh", str(work)])


def _debian() -> Path:
    whole = CACHE / "debian.tar"
    if not whole.exists():
        root = CACHE / "debian.root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        run(["debootstrap", "--variant=minbase", SUITE, str(root)], timeout_s=MINUTES_MAX_S)
        shutil.rmtree(root / "var" / "cache" / "apt")
        packs = ["tar", "--sort=name", "--numeric-owner", "--format=posix", "--xattrs"]
        part = whole.with_suffix(".tar.part")
        run([*packs, "-C", str(root), "-cf", str(part), "."], timeout_s=MINUTES_MAX_S)
        part.rename(whole)
        shutil.rmtree(root)
    return whole
