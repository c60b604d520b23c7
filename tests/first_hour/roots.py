"""Debian roots that have nothing but what the texts take for granted, and machines made of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, Process, run, wait_until

# Kept between runs: debootstrap takes most of a minute. `make clean` deletes them.
CACHE: Final = Path(__file__).parents[2] / "build" / "first_hour"
SUITE: Final = os.environ.get("P2PDIST_DEBIAN", "bookworm")
UBUNTU: Final = SUITE in ("noble",)
# What apt adds by itself where somebody installs docker.io: a package of its own from Debian 13 on.
GIVEN: Final = "docker.io" if SUITE in ("bookworm", "noble") else "docker.io,docker-cli"
# Debian's debootstrap knows older Ubuntus, whose script is the same, and has not their keys.
OF_UBUNTU: Final = ("--components=main,universe", "--no-check-gpg")
UBUNTU_MIRROR: Final = ("http://archive.ubuntu.com/ubuntu", "/usr/share/debootstrap/scripts/gutsy")
DEBOOTSTRAP_S: Final = 900.0
COMMANDS_S: Final = 240.0
SYSTEMCTL: Final = Path(__file__).parent / "systemctl.py"
USER: Final = "ann"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The root of the machine, in namespaces that end with its first process; $0: the root, $1: where
# to say that it is there.
_INIT: Final = """
cd "$0"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs tmpfs run
for given in $2; do mount --bind "$given" ".$given"; done
touch "$1"
exec chroot . /bin/sleep infinity
"""


def debian() -> Path:
    """Return a root of `SUITE` that nothing writes to, made where it is not kept."""
    root = CACHE / SUITE
    if not root.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = CACHE / f"{SUITE}.part"
        shutil.rmtree(part, ignore_errors=True)
        options = ["--variant=minbase", f"--include={GIVEN}", *(OF_UBUNTU if UBUNTU else ())]
        place = [SUITE, str(part), *(UBUNTU_MIRROR if UBUNTU else ())]
        run(["debootstrap", *options, *place], timeout_s=DEBOOTSTRAP_S)
        shutil.rmtree(part / "var" / "cache" / "apt")
        (part / "etc" / "apt" / "apt.conf.d" / "99yes").write_text('APT::Get::Assume-Yes "true";\n')
        shutil.copy2(SYSTEMCTL, part / "usr" / "local" / "bin" / "systemctl")
        (part / "usr" / "local" / "bin" / "systemctl").chmod(0o755)
        part.replace(root)
    return root


class Machine:
    """A Debian of its own, on a host of the lab or (None) in the network of this machine."""

    def __init__(self, name: str, lowers: Sequence[Path], work: Path, host: Host | None) -> None:
        self.name = name
        self.lowers = tuple(lowers)
        self.root = work / f"root-{name}"
        self.upper = work / f"upper-{name}"
        self._scratch = work / f"scratch-{name}"
        for directory in (self.root, self.upper, self._scratch):
            directory.mkdir()
        self._work = work
        self._host = host
        self._ready = work / f"ready-{name}"
        given = "" if host is not None else "/etc/resolv.conf"
        script = f'mount -t overlay overlay -o "$OVERLAY" "$0"\n{_INIT}'
        shell = ["sh", "-euc", script, str(self.root), str(self._ready), given]
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", *shell]
        layers = ":".join(map(str, self.lowers))
        self.process = Process(
            f"the first process of {name}",
            isolated if host is None else host.inside(*isolated),
            work / f"{name}.log",
            {"OVERLAY": f"lowerdir={layers},upperdir={self.upper},workdir={self._scratch}"},
        )

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._ready.exists)

    def stop(self) -> None:
        """End all that runs there."""
        if self.process.alive:
            os.kill(self._first(), signal.SIGKILL)
        self.process.stop()

    def leave(self) -> None:
        """Stop, and leave its addresses to other machines."""
        self.stop()
        if self._host is not None:
            self._host.run("ip", "address", "flush", "dev", "eth0")

    def inside(
        self, *argv: str, user: str = "root", env: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the command that runs `argv` there, as `user` does after a login."""
        home = "/root" if user == "root" else f"/home/{user}"
        variables = {"PATH": PATH, "HOME": home, "USER": user, "LANG": "C.UTF-8", **(env or {})}
        entered = ["nsenter", f"--target={self._first()}", "--mount", "--pid", "--net", "--uts"]
        login = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return [
            *entered,
            "--root",
            "--wdns=/",
            "env",
            "-i",
            *(f"{name}={value}" for name, value in variables.items()),
            *([] if user == "root" else login),
            *argv,
        ]

    def run(self, script: str, *, user: str = "root", env: Mapping[str, str] | None = None) -> str:
        """Run commands in the checkout; return all that they print, raise LabError with it."""
        log = self._work / f"{self.name}-{len(list(self._work.glob('*.out')))}.out"
        checkout = f"cd /home/{USER}/p2pdist\n"
        argv = self.inside("bash", "-lc", checkout + script, user=user, env=env)
        with log.open("wb") as out:  # a file: daemons in the background hold it open
            ended = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=COMMANDS_S,
                check=False,
            )
        text = log.read_text(errors="replace")
        if ended.returncode != 0:
            raise LabError(
                f"on {self.name}: exit {ended.returncode}\n{script}\n--- printed:\n{text}"
            )
        return text

    def write(self, path: str, source: Path) -> None:
        """Put a copy of `source` there, with its mode, as `scp -p` does."""
        script = 'umask 077; cat >"$0"; chmod "$1" "$0"'
        argv = self.inside("sh", "-euc", script, path, f"{source.stat().st_mode & 0o777:o}")
        subprocess.run(argv, input=source.read_bytes(), check=True, timeout=COMMANDS_S)

    def status(self) -> list[dict[str, Any]]:
        """What `p2pdist status` knows of the daemons there."""
        daemons: list[dict[str, Any]] = json.loads(self.run("p2pdist status -o json"))["daemons"]
        return daemons

    def start_docker(self) -> None:
        """Have Docker run, as it does on a host before this project comes to it."""
        alone = "--bridge=none --iptables=false --ip6tables=false --userland-proxy=false"
        self.run(f"nohup dockerd {alone} >/var/log/docker.log 2>&1 &")
        wait_until(self._docker_answers, f"dockerd on {self.name}", timeout_s=60.0)

    def _docker_answers(self) -> bool:
        return subprocess.run(self.inside("docker", "version"), capture_output=True).returncode == 0

    def _first(self) -> int:
        """The process that is 1 there: what started it (unshare) waits for it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])


def put_checkout(root: Path) -> None:
    """Put the files of this checkout below `root`, as a clone has them, into a user's home."""
    here = CACHE.parents[1]
    listed = run(["git", "-C", str(here), "ls-files", "--cached", "--others", "--exclude-standard"])
    home = root / "home" / USER / "p2pdist"
    for name in listed.splitlines():
        if (here / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here / name, home / name)


def pip_of_this_machine(root: Path) -> dict[str, str]:
    """Variables that make pip use the index that pip uses here; the files it needs go below
    `root`."""
    shown = run([sys.executable, "-m", "pip", "config", "list"])
    found: dict[str, str] = {}
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2].replace("-", "_").upper()] = value.strip("'\"")
    for name, value in found.items():
        if name in ("CERT", "FIND_LINKS") and Path(value).exists():
            copy = root / "opt" / "pip-of-this-machine" / Path(value).name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if Path(value).is_dir():
                shutil.copytree(value, copy)
            else:
                shutil.copy2(value, copy)
            found[name] = f"/{copy.relative_to(root)}"
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**{f"PIP_{name}": value for name, value in found.items()}, **proxies}
