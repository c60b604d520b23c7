"""Files with secrets: small, and readable by nobody whom they do not concern."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# systemd (LoadCredential=) names its directory here; since version 254 it lets the service read the
# files by an ACL, whose mask shows as a group's permission.
CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
KEY_FILE_BYTES_MAX: Final = 16 * 1024  # an RSA key of 4096 bits has 3.3 kB in PEM


def read_secret_file(path: Path, limit_bytes: int) -> bytes:
    """Return what the file holds; raise ValueError with what is wrong and what mends it."""
    data, status = read_small_file(path, limit_bytes)
    if open_to_others(status.st_mode, status.st_uid, credential=_is_credential(path)):
        raise ValueError(f"{path} may be read by others; run: chmod 600 {path}")
    if not data.strip(b"\0"):  # as a power cut leaves it; zeros would be anybody's secret
        raise ValueError(f"{path} lost its bytes; copy it from another host or backup")
    return data


def open_to_others(mode: int, uid: int, *, credential: bool) -> bool:
    """Whether a file of this mode and owner is no secret; `credential`: systemd put it there.

    A group may read it where root gave it that: Kubernetes does so with `fsGroup` (root:GID 0440),
    packages with files of root:p2pdist. Nobody else, and nobody but the owner may write it.
    """
    return bool(mode & (0o037 if uid == 0 or credential else 0o077))


def read_small_file(path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return content and status of one file; raise ValueError where it is missing or large."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(data) > limit_bytes:
        raise ValueError(f"{path} is larger than {limit_bytes} bytes")
    return data, status


def _is_credential(path: Path) -> bool:
    directory = os.environ.get(CREDENTIALS_DIRECTORY, "")
    return bool(directory) and path.parent.absolute() == Path(directory).absolute()
