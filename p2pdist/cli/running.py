"""Runs a container of a mounted image with runc, or what does the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from p2pdist.cli.copying.image import RemoteImage
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.mounting import Mounted
from p2pdist.oci.run_config import RunConfig, environment, find_user, run_config
from p2pdist.streaming.core.image_tree import NoSuchFile
from p2pdist.streaming.image_mount import mount_writable, unmount_image, unmount_writable

RUNTIMES: Final = ("runc", "crun")
USERS_BYTES_MAX: Final = 1 << 20
# What Docker and Podman leave to a container of root: images count on it (`apt`, `su`, `ping`).
CAPABILITIES: Final = [
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
        "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
]  # fmt: skip
OF_THE_HOST: Final = ("/etc/resolv.conf", "/etc/hosts")
"""It has the network of the host, and so its names."""


@dataclass(frozen=True, slots=True)
class Volume:
    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for, over what the image says."""

    command: Sequence[str]
    variables: Sequence[str]
    volumes: Sequence[Volume]
    directory: str | None
    user: str | None
    read_only: bool

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for text in self.variables:
            if not text.partition("=")[0] or "=" not in text:
                raise ValueError(f"not NAME=VALUE: {text!r}")
        if self.directory is not None and not self.directory.startswith("/"):
            raise ValueError(f"--workdir is a path from the root, not {self.directory!r}")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is needed of an image before it runs."""

    config: RunConfig
    passwd: bytes
    group: bytes


def volume(text: str) -> Volume:
    """Raises ValueError."""
    source, _, rest = text.partition(":")
    target, colon, mode = rest.partition(":")
    if not source or not target.startswith("/") or (colon and mode not in ("ro", "rw")):
        raise ValueError(f"not HOST:PATH[:ro], with a path from the root: {text!r}")
    path = Path(source).absolute()
    if not path.exists():
        raise ValueError(f"{path} is not there to be a volume")
    return Volume(str(path), target, mode == "ro")


def runtime() -> str:
    """The path of a program that runs containers. Raises CommandError."""
    for name in RUNTIMES:
        if (found := shutil.which(name)) is not None:
            return found
    raise CommandError(
        f"neither {' nor '.join(RUNTIMES)} is here to run a container", Exit.USAGE,
        "install one, such as with `apt install runc`",
    )  # fmt: skip


async def look(image: RemoteImage, target: Path) -> Seen:
    """Raises CommandError."""
    config = image.image.info.config
    assert config is not None, "an image without one is not mounted"
    try:
        found = run_config(image.image.path(config.digest).read_bytes())
    except ValueError as error:
        raise CommandError(f"its config: {error}", Exit.UNEXPECTED) from None
    passwd, group = [await _small_file(image, name) for name in (b"/etc/passwd", b"/etc/group")]
    return Seen(found, passwd, group)


async def _small_file(image: RemoteImage, path: bytes) -> bytes:
    """What the image has there; nothing where it has no such file. No link leads out of it."""
    try:
        found = image.tree.find(path)
    except NoSuchFile:
        return b""
    size = found.node.size_bytes
    if found.node.is_directory or found.node.member is None or size > USERS_BYTES_MAX:
        return b""
    pieces = image.layers[found.layer].pieces(found.node.offset, size)
    return b"".join([bytes(piece) async for piece in pieces])


def run_container(program: str, mounted: Mounted[Seen], wanted: Wanted, *, terminal: bool) -> int:
    """Return how its command ended; nothing of it is left. Raises CommandError."""
    place, name = mounted.place, f"p2pdist-{mounted.place.name}"
    root = place / "root"
    try:
        mount_writable(mounted.target, root, place)
        bundle = place / "bundle"
        bundle.mkdir()
        spec = _default_spec(program, bundle)
        _fill_in(spec, mounted.seen, wanted, root=str(root), name=name, terminal=terminal)
        (bundle / "config.json").write_text(json.dumps(spec))
        words = [program, "--root", str(place / "runtime"), "run", "--bundle", str(bundle), name]
        return _ended(words)
    finally:
        unmount_writable(root)
        unmount_image(place, mounted.target, lazy=True)
        shutil.rmtree(place, ignore_errors=True)


def _default_spec(program: str, bundle: Path) -> dict[str, Any]:
    """What the runtime itself gives a container: mounts, and what is hidden from it."""
    words = [program, "spec"]
    done = subprocess.run(words, cwd=bundle, capture_output=True, check=False)  # noqa: S603
    if done.returncode != 0:
        text = done.stderr.decode("utf-8", "replace").strip()
        raise CommandError(f"`{program} spec`: {text}", Exit.UNEXPECTED)
    spec: dict[str, Any] = json.loads((bundle / "config.json").read_bytes())
    return spec


def _fill_in(
    spec: dict[str, Any], seen: Seen, wanted: Wanted, *, root: str, name: str, terminal: bool
) -> None:
    """Raises CommandError."""
    config = seen.config
    try:
        user = find_user(wanted.user or config.user, seen.passwd, seen.group)
        arguments = config.arguments(wanted.command)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    own = [f"HOME={user.home}", *([f"TERM={os.environ.get('TERM', 'xterm')}"] if terminal else [])]
    spec["process"] = {
        "terminal": terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": arguments,
        "env": environment([*own, *config.environment], wanted.variables),
        "cwd": wanted.directory or config.directory,
        "capabilities": {
            kind: CAPABILITIES if kind == "bounding" or user.uid == 0 else []
            for kind in ("bounding", "effective", "permitted")
        },
        "noNewPrivileges": False,
    }
    spec["root"] = {"path": root, "readonly": wanted.read_only}
    spec["hostname"] = name
    namespaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [n for n in namespaces if n["type"] != "network"]
    names = [Volume(path, path, read_only=True) for path in OF_THE_HOST if Path(path).exists()]
    for each in [*([] if wanted.read_only else names), *wanted.volumes]:
        options = ["rbind", "ro" if each.read_only else "rw"]
        bound = {"destination": each.target, "type": "bind", "source": each.source}
        spec["mounts"].append({**bound, "options": options})


def _ended(words: Sequence[str]) -> int:
    """Run it, pass on what tells it to end, and return its exit status.

    A terminal tells the container of Ctrl-C itself; SIGTERM comes to us alone.
    """
    running: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        if running is not None and number == signal.SIGTERM:
            running.send_signal(number)

    # Not SIG_IGN: what is ignored here would be so in the container.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        running = subprocess.Popen(words)  # noqa: S603 - a program of this host, our own words
        code = running.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
