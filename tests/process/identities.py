"""Certificates for tests, with dates of any day; nothing of them is on a disk before `kept`."""

from __future__ import annotations

from pathlib import Path

from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.process import clock
from p2pdist.process.ca import (
    CA_KEY_NAME,
    CA_NAME,
    CERT_NAME,
    KEY_NAME,
    Ca,
    Issued,
    issue,
    new_ca,
    private_pem,
)
from p2pdist.process.certificates import DAY_S
from p2pdist.process.files import write_whole
from p2pdist.process.host_identity import HostIdentity, read_identity


class TestCa:
    """A CA, and the directories of those whom it certified."""

    __test__ = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ca = new_ca(clock.unix_s() - 100 * DAY_S)
        self._made = 0

    def keep(self) -> Path:
        """Put the CA with its key on the disk, as `p2pdist ca init` does."""
        path = self.root / "ca"
        path.mkdir(mode=0o700, exist_ok=True)
        write_whole(path / CA_NAME, self.ca.pem, mode=0o644)
        write_whole(path / CA_KEY_NAME, private_pem(self.ca.key))
        return path

    def issue(
        self, role: str, host_id: HostId, *, begun_days: float = 0.0, days: int = 30
    ) -> Issued:
        """A certificate that begins that many days ago, or hence."""
        identity = Identity(IdentityRole(role), host_id)
        return issue(self.ca, identity, days=days, now_s=clock.unix_s() - begun_days * DAY_S)

    def directory(self, role: str, host_id: HostId, *, begun_days: float = 0.0) -> Path:
        self._made += 1
        return kept(self.root / f"i{self._made}", self.ca, self.issue(
            role, host_id, begun_days=begun_days
        ))  # fmt: skip

    def identity(
        self, role: str, host_id: HostId, *, required: bool = False, begun_days: float = 0.0
    ) -> HostIdentity:
        path = self.directory(role, host_id, begun_days=begun_days)
        return read_identity(path, IdentityRole(role), required=required)


def kept(path: Path, ca: Ca, issued: Issued) -> Path:
    """Write the three files."""
    path.mkdir()
    write_whole(path / CA_NAME, ca.pem, mode=0o644)
    write_whole(path / KEY_NAME, issued.key)
    write_whole(path / CERT_NAME, issued.certificate, mode=0o644)
    return path
