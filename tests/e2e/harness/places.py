"""Mount namespaces that see the mounts of the host, such as the snapshotter's, and show it none.

They stay when the engine in them is killed: what watches over its containers has its socket in
/run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import Process, run

_STAY: Final = "echo ready; exec sleep infinity"
_HERE: Final = f"mount -t tmpfs tmpfs /run; {_STAY}"
# A Debian of its own, of which only what is written is kept, in memory; $0: its files, $1: a
# directory that is there at the same path, with what is mounted below it, now and later.
_DEBIAN: Final = f"""
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/scratch /mnt/root
mount -t overlay overlay -o "lowerdir=$0,upperdir=/mnt/upper,workdir=/mnt/scratch" /mnt/root
cd /mnt/root
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p ".$1"
mount --rbind "$1" ".$1"
{_STAY}
"""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Place:
    """One of them. Where mounts of the host are private, it sees those made before it begins."""

    def __init__(self, work: Path, *, host: Host | None = None, debian: Path | None = None) -> None:
        """`host`: in whose network it is. `debian`: a root whose programs are used in place of this
        machine's; it sees `work` of the host, and nothing else."""
        shell = ["sh", "-euc", _HERE] if debian is None else ["sh", "-euc", _DEBIAN, str(debian)]
        argv = ["unshare", "--mount", "--propagation", "slave", *shell, str(work)]
        log = work / "place.log"
        self._process = Process("place", argv if host is None else host.inside(*argv), log)
        self._enters = [] if debian is None else ["env", f"PATH={_PATH}", "chroot", "/mnt/root"]

    def start(self) -> None:
        """Make it, unless it is there."""
        if not self._process.alive:
            self._process.start()
            self._process.wait_ready(lambda: b"ready" in self._process.log.read_bytes())

    def stop(self) -> None:
        self._process.stop()

    def inside(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` there, in a process of its own."""
        return [
            "nsenter", "--mount", "--net", f"--target={self._process.pid}", *self._enters, *argv,
        ]  # fmt: skip

    def run(self, *argv: str, timeout_s: float = 60.0, env: Mapping[str, str] | None = None) -> str:
        """Run a command there to its end; return its stdout, raise LabError with its stderr."""
        return run(self.inside(*argv), timeout_s=timeout_s, env=env)
