"""What the role asks of systemctl, itself and by `systemd_service`, where systemd does not run.

Units are those that were there at the last `daemon-reload`, as with systemd.
"""

import os
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path

from tests.first_hour.systemctl import read, start

FILES = Path("/etc/systemd/system")
LOADED = Path("/run/units")
WANTED = FILES / "multi-user.target.wants"
STOP_S = 35.0
POLL_S = 0.05


def process_of(unit: str) -> int | None:
    """The process that runs, or None."""
    try:
        pid = int(Path(f"/run/{unit}.pid").read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


def stop(unit: str) -> None:
    pid = process_of(unit)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_S
    while process_of(unit) is not None:
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def reload() -> None:
    shutil.rmtree(LOADED, ignore_errors=True)
    LOADED.mkdir()
    for file in FILES.glob("*.service"):
        if file.is_file():
            shutil.copy2(file, LOADED)


def run_of(unit: str) -> Path:
    """Holds the ID of the run that is, or was last."""
    return Path(f"/run/{unit}.invocation")


def show(unit: str) -> None:
    is_loaded = (LOADED / f"{unit}.service").exists()
    print(f"Id={unit}.service")
    print(f"LoadState={'loaded' if is_loaded else 'not-found'}")
    print(f"ActiveState={'inactive' if process_of(unit) is None else 'active'}")


def main(verb: str, *arguments: str) -> None:
    unit = arguments[0] if arguments else ""
    link = WANTED / f"{unit}.service"
    if verb == "daemon-reload":
        reload()
    elif (verb, *arguments[:2]) == ("show", "--property=InvocationID", "--value"):
        file = run_of(arguments[2])
        print(file.read_text() if file.exists() else "")
    elif verb == "show":
        show(unit)
    elif verb == "is-enabled":
        print("enabled" if link.is_symlink() else "disabled")
        sys.exit(0 if link.is_symlink() else 1)
    elif verb == "enable":
        WANTED.mkdir(parents=True, exist_ok=True)
        link.symlink_to(FILES / link.name)
    elif verb == "disable":
        link.unlink()
    elif verb in ("start", "stop", "restart"):
        if verb != "start":
            stop(unit)
        if verb != "stop":
            run_of(unit).write_text(uuid.uuid4().hex)
            start(unit, read(unit, LOADED))
    else:
        sys.exit(f"systemctl {verb}: not known here")


main(*sys.argv[1:])
