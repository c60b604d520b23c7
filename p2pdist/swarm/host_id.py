"""The id of this host: kept in a file that is bound to the machine, and given up for a new one.

State directories are copied: into images that machines are made from, onto new disks, with volumes
that containers take along. Two hosts with one id throw each other out of the tracker and of every
link, so whoever finds the id of another machine, or hears that it is in use, takes a new one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.model.ids import HostId, parse_host_id
from p2pdist.process import logs
from p2pdist.process.files import read_bounded_file, write_whole

log = logging.getLogger(__name__)

FILE_NAME: Final = "host_id"
FILE_BYTES_MAX: Final = 256
# machine-id(5): absent, empty or "uninitialized" until a system has been given one.
MACHINE_ID_PATH: Final = Path("/etc/machine-id")
_MACHINE_ID: Final = re.compile(r"[0-9a-f]{32}")
# Who hears again and again that its new id is in use hears it from something that is broken.
RENEW_PAUSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file says: a line for each."""

    host_id: HostId
    machine: str = ""
    """The `machine_mark` of where the id was made or first used; empty: of no machine."""

    @classmethod
    def parse(cls, data: bytes) -> Kept:
        """Raise ValueError for what is no such file."""
        host_id, _, machine = data.decode("ascii").rstrip("\n").partition("\n")
        return cls(parse_host_id(host_id), parse_host_id(machine) if machine else "")

    def __bytes__(self) -> bytes:
        return "".join(f"{line}\n" for line in (self.host_id, self.machine) if line).encode()


def machine_mark(path: Path = MACHINE_ID_PATH) -> str:
    """Return what tells this machine from others, empty where nothing does.

    The machine's own id is not to be shown to anybody, machine-id(5): this is a hash with it.
    """
    try:
        machine_id = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    if _MACHINE_ID.fullmatch(machine_id) is None:
        return ""
    digest = hmac.digest(bytes.fromhex(machine_id), b"p2pdist host id", hashlib.sha256)
    return digest[:16].hex()


class OwnId:
    """The id that this host goes by now."""

    def __init__(self, path: Path | None, host_id: HostId, machine: str) -> None:
        self.current = host_id
        self.renewed_total = 0
        """Ids given up because another host has them."""
        self._path = path
        self._machine = machine
        self._renewed_s: float | None = None

    @classmethod
    def certified(cls, host_id: HostId) -> OwnId:
        """The id that a certificate is for: it stays, and no file is asked."""
        return cls(None, host_id, "")

    @property
    def is_certified(self) -> bool:
        return self._path is None

    @classmethod
    def load(cls, state_dir: Path, machine: str) -> OwnId:
        """Read the id, or make one: at the first start, on another machine, for a damaged file.

        `machine` is a `machine_mark`. Blocking; raise ConfigError for a file that cannot be read,
        OSError where an id cannot be kept.
        """
        path = state_dir / FILE_NAME
        try:
            data = read_bounded_file(path, FILE_BYTES_MAX)
            kept = Kept.parse(data or b"")
        except FileNotFoundError:
            return cls._made(path, machine)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except ValueError:
            return cls._made(path, machine, "the file was damaged")
        if kept.machine and machine and kept.machine != machine:
            return cls._made(path, machine, "the state directory comes from another machine")
        if machine and not kept.machine:
            _keep(path, Kept(kept.host_id, machine))
        return cls(path, kept.host_id, machine)

    @classmethod
    def _made(cls, path: Path, machine: str, why: str = "") -> OwnId:
        own = cls(path, HostId(secrets.token_hex(16)), machine)
        write_whole(path, bytes(Kept(own.current, machine)))
        if why:
            logs.event(log, logging.WARNING, "host.new_id", why=why, host_id=own.current)
        return own

    def renew(self, now_s: float, detail: str) -> Callable[[], None] | None:
        """Another host has this id: go by a new one from now on.

        Return what keeps it, which blocks; None where nothing is to be done, as the id is new, or
        can be done, as a certificate is for it.
        """
        path = self._path
        if path is None:
            return None
        if self._renewed_s is not None and now_s - self._renewed_s < RENEW_PAUSE_S:
            return None
        self._renewed_s = now_s
        self.renewed_total += 1
        given_up, self.current = self.current, HostId(secrets.token_hex(16))
        logs.event(
            log,
            logging.WARNING,
            "host.new_id",
            why=f"another host has the same host id: {detail}",
            host_id=self.current,
            given_up=given_up,
        )
        kept = Kept(self.current, self._machine)
        return lambda: _keep(path, kept)


def _keep(path: Path, kept: Kept) -> None:
    """Where it cannot be written, the next start goes through the same again."""
    try:
        write_whole(path, bytes(kept))
    except OSError as error:
        text = error.strerror or str(error)
        logs.event(log, logging.WARNING, "host.id_not_kept", path=str(path), error=text)
