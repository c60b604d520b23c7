"""Hosts that Ansible sets up: this machine's paths, in mounts and a network of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.harness.lab import Lab
from tests.e2e.harness.processes import Process, run

ROOT: Final = Path(__file__).parents[2]
PLAYBOOKS: Final = ROOT / "deploy" / "ansible"
BIN: Final = ROOT / ".venv" / "ansible" / "bin"
OWN_MOUNTS: Final = Path(__file__).parent / "in_own_mounts.sh"
PYTHON: Final = f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLAY_S: Final = 300.0
# The first process: as systemd does, it takes note of the end of whoever lost its parent.
_INIT: Final = """
import pathlib, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
"""
_SYSTEMCTL: Final = f"""#!/bin/sh
cd {ROOT} && exec {PYTHON} -m tests.ansible.systemctl "$@"
"""


class Machine:
    """A host; what was written there lies below `upper`."""

    def __init__(self, name: str, lab: Lab, packages: Path) -> None:
        self.name = name
        self.host = lab.host(name)
        self.layers = lab.work / f"layers-{name}"
        self.upper = self.layers / "upper"
        self._ready = lab.work / f"ready-{name}"
        self._put("usr/local/bin/systemctl", _SYSTEMCTL, 0o755)
        self._put("etc/pip.conf", f"[install]\nno-index = true\nfind-links = {packages}\n", 0o644)
        first = [sys.executable, "-c", _INIT, str(self._ready)]
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts"]
        mounted = ["sh", str(OWN_MOUNTS), str(self.layers), sys.base_prefix, *first]
        self.process = Process(
            f"the first process of {name}",
            self.host.inside(*isolated, *mounted),
            lab.work / f"{name}.log",
        )
        # The module's Python: what Ansible sends to the host runs there.
        self.python = lab.work / f"python-{name}"

    def _put(self, path: str, text: str, mode: int) -> None:
        file = self.upper / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._ready.exists)
        self.python.write_text(f'#!/bin/sh\nexec {" ".join(self.inside(PYTHON))} "$@"\n')
        self.python.chmod(0o755)
        self.before = self.written()

    def stop(self) -> None:
        """End all that runs there."""
        if self.process.alive:
            os.kill(self._first(), signal.SIGKILL)
        self.process.stop()

    def _first(self) -> int:
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def inside(self, *argv: str) -> list[str]:
        namespaces = ["--mount", "--pid", "--net", "--uts"]
        entered = ["nsenter", f"--target={self._first()}", *namespaces, "--"]
        return [*entered, "env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8", *argv]

    def run(self, *argv: str) -> str:
        return run(self.inside(*argv))

    def daemons(self) -> dict[str, int]:
        """Role -> process of what runs."""
        show = "for f in /run/p2pdist-*.pid; do p=$(cat $f) && kill -0 $p && echo $f $p; done"
        shown = self.run("sh", "-c", f"{{ {show}; }} 2>/dev/null; :")
        return {role: int(pid) for role, pid in re.findall(r"p2pdist-(\w+)\.pid (\d+)", shown)}

    def written(self) -> set[str]:
        """The files and directories that are not the machine's."""
        found = set()
        for directory, directories, files in os.walk(self.upper):
            for name in [*directories, *files]:
                path = Path(directory, name).relative_to(self.upper)
                if "__pycache__" not in path.parts and not (Path("/") / path).exists():
                    found.add(str(path))
        return found

    def left(self) -> set[str]:
        """What is there now and was not at the beginning."""
        return self.written() - self.before


@dataclass(frozen=True)
class Played:
    code: int
    text: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Host -> counts, of the last lines."""
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", self.text, re.MULTILINE)
        return {
            host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in lines
        }

    def changed(self) -> int:
        return sum(counts["changed"] for counts in self.recap.values())


class Control:
    """The control node: this machine, with what an operator has there."""

    def __init__(self, lab: Lab, groups: Mapping[str, Sequence[Machine]]) -> None:
        self.work = lab.work
        self.files = lab.work / "files of a cluster"
        self._groups = groups
        self.vars: dict[str, Any] = {
            "ansible_connection": "local",
            "p2pdist_python": PYTHON,
            "p2pdist_files": str(self.files),
            "p2pdist_wheel_dir": str(lab.work / "wheel"),
            "p2pdist_check_retries": 5,
            "p2pdist_check_delay_s": 1,
        }
        self.host_vars: dict[str, dict[str, Any]] = {}

    def play(self, name: str, *options: str, **given: Any) -> Played:
        """Run a playbook; `given`: extra variables."""
        inventory = self.work / "inventory.json"
        children = {
            group: {
                "hosts": {
                    m.name: {"ansible_python_interpreter": str(m.python)}
                    | self.host_vars.get(m.name, {})
                    for m in machines
                }
            }
            for group, machines in self._groups.items()
        }
        inventory.write_text(json.dumps({"all": {"vars": self.vars, "children": children}}))
        argv = [str(BIN / "ansible-playbook"), "-i", str(inventory), str(PLAYBOOKS / name)]
        done = subprocess.run(
            [*argv, "-e", json.dumps(given), *options],
            env={
                **os.environ,
                "ANSIBLE_HOME": str(self.work / "ansible"),
                "ANSIBLE_LOCAL_TEMP": str(self.work / "ansible-tmp"),
                "ANSIBLE_REMOTE_TMP": str(self.work / "ansible-tmp"),
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_INVENTORY_ENABLED": "yaml",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAY_S,
            check=False,
        )
        return Played(done.returncode, done.stdout)
