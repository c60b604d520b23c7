"""Lists of revoked hosts in files: made beside a CA's key, read by trackers and hosts, kept by all.

A list is text, a record in base64 on each line, so that lists can be put together with `cat`.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.errors import ConfigError
from p2pdist.model.control import HOST_RECORDS_MAX
from p2pdist.model.ids import HostId
from p2pdist.process.ca import Ca
from p2pdist.process.files import write_whole
from p2pdist.process.revoked_hosts import (
    HOSTS_MAX,
    HOSTS_OF_RECORD_MAX,
    RevokedHosts,
    judge,
    sign_revocation,
)
from p2pdist.process.secret_files import read_small_file

LIST_NAME: Final = "revoked.list"
_FILE_BYTES_MAX: Final = 1 << 20


def read_list(path: Path) -> list[bytes]:
    """Return the records of a file, none where there is no file; raise ValueError for one that is
    no such list, with the line. Blocking. Who may write it does not matter: they are signed."""
    if not path.exists():
        return []
    data, _ = read_small_file(path, _FILE_BYTES_MAX)
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(base64.b64decode(line.strip(), validate=True))
        except ValueError:
            raise ValueError(f"{path}: line {number} is no record of `p2pdist ca revoke`") from None
    if len(found) > HOST_RECORDS_MAX:
        raise ValueError(f"{path} has more than {HOST_RECORDS_MAX} records")
    return found


def write_list(path: Path, records: Iterable[bytes]) -> None:
    """Put records in a file of ours, whole. Blocking; raises OSError."""
    lines = [base64.b64encode(record) + b"\n" for record in records]
    write_whole(path, b"".join(lines), mode=0o644)


def revoke(directory: Path, ca: Ca, hosts: Sequence[HostId], now_s: float) -> list[HostId]:
    """Add hosts to the list beside the CA in `directory`; return those that were not on it. Raises
    ConfigError. Blocking."""
    with _alone(directory):
        revoked, records = listed(directory, ca), read_list(directory / LIST_NAME)
        fresh = [host for host in dict.fromkeys(hosts) if host not in revoked]
        for start in range(0, len(fresh), HOSTS_OF_RECORD_MAX):
            part = fresh[start : start + HOSTS_OF_RECORD_MAX]
            records.append(sign_revocation(ca, part, now_s))
        if len(records) > HOST_RECORDS_MAX or len(revoked) + len(fresh) > HOSTS_MAX:
            text = f"{HOST_RECORDS_MAX} revocations and {HOSTS_MAX} hosts are all that a CA names"
            raise ConfigError(f"{directory / LIST_NAME}: {text}; it is time for another CA")
        if fresh:
            write_list(directory / LIST_NAME, records)
    return fresh


def listed(directory: Path, ca: Ca) -> RevokedHosts:
    """Return whom the list beside a CA names. Raises ConfigError where it is damaged: nothing of it
    is to be lost."""
    path, found = directory / LIST_NAME, RevokedHosts()
    try:
        found.take(judge(read_list(path), [ca.certificate.public_bytes(Encoding.DER)]))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if found.trouble:
        raise ConfigError(f"{path}: {found.trouble}")
    return found


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two who revoke at once would each write a list without the other one's."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
