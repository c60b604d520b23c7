#!/usr/bin/env python3
"""`systemctl enable --now UNIT` and `disable --now UNIT`, where systemd does not run.

Obeys what the unit file says of the command, the variables, the user, the state directory and the
credentials; what confines the daemon (`Protect…=`, limits) it leaves out.
"""

import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

READY_S = 60.0
POLL_S = 0.2

Settings = dict[str, list[str]]


def read(unit: str, directory: str | Path = "/etc/systemd/system") -> Settings:
    """Key -> values, in their order."""
    found: Settings = {}
    for line in Path(directory, f"{unit}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def start(unit: str, settings: Settings) -> None:
    """A unit without a user is root's, and may have neither state nor credentials of its own."""
    (user,) = settings.get("User", ["root"])
    account = account_of(user)
    credentials = Path("/run/credentials", f"{unit}.service")
    states = [Path("/var/lib", name) for name in settings.get("StateDirectory", [])]
    for directory in (*states, credentials):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        os.chown(directory, account.pw_uid, account.pw_gid)
    for line in settings.get("LoadCredential", []):
        name, _, source = line.partition(":")
        copy = credentials / name
        shutil.copyfile(source, copy)
        copy.chmod(0o400)
        os.chown(copy, account.pw_uid, account.pw_gid)
    environ = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(credentials)}
    for assignment in settings.get("Environment", []):
        name, _, value = assignment.partition("=")
        environ[name] = value.replace("%S", "/var/lib").replace("%d", str(credentials))
    (command,) = settings["ExecStart"]
    run(unit, shlex.split(command), account, environ)


def account_of(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        make = ["useradd", "--system", "--user-group", "--no-create-home", user]
        subprocess.run(make, check=True)
        return pwd.getpwnam(user)


def run(unit: str, command: list[str], account: pwd.struct_passwd, environ: dict[str, str]) -> None:
    """Start it and return once it says READY=1, as units of `Type=notify` are waited for."""
    address = f"/run/notify-{unit}"
    Path(address).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(address)
        os.chmod(address, 0o666)
        notices.settimeout(POLL_S)
        with open(f"/var/log/{unit}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environ, "NOTIFY_SOCKET": address},
                cwd="/",
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                start_new_session=True,
            )
        Path(f"/run/{unit}.pid").write_text(str(process.pid))
        if not ready(notices, process):
            sys.exit(f"{unit} did not become ready:\n{Path(f'/var/log/{unit}.log').read_text()}")


def ready(notices: socket.socket, process: subprocess.Popen[bytes]) -> bool:
    deadline_s = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            if b"READY=1" in notices.recv(4096):
                return True
        except TimeoutError:
            pass
    return False


def main() -> None:
    verb, now, unit = sys.argv[1:]
    assert now == "--now"
    if verb == "enable":
        start(unit, read(unit))
    elif verb == "disable":
        os.kill(int(Path(f"/run/{unit}.pid").read_text()), signal.SIGTERM)
    else:
        sys.exit(f"systemctl {verb}: not known here")


if __name__ == "__main__":
    main()
