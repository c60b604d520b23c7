"""Who may read a file with a secret, besides its owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.process.secret_files import CREDENTIALS_DIRECTORY, open_to_others, read_secret_file

LIMIT = 64
ROOT, USER = 0, 1000


@pytest.mark.parametrize(
    ("mode", "uid", "credential"),
    [
        (0o400, USER, False),
        (0o600, USER, False),
        (0o440, ROOT, False),  # Kubernetes with fsGroup
        (0o640, ROOT, False),
        (0o440, USER, True),  # systemd 254 and later: the mask of an ACL
    ],
)
def test_a_secret_is_read_by_whom_it_was_given_to(mode: int, uid: int, credential: bool) -> None:
    assert not open_to_others(mode, uid, credential=credential)


@pytest.mark.parametrize(
    ("mode", "uid", "credential"),
    [
        (0o440, USER, False),
        (0o644, ROOT, False),
        (0o604, USER, False),
        (0o660, ROOT, False),
        (0o620, USER, True),
        (0o444, USER, True),
        (0o650, ROOT, False),
    ],
)
def test_what_others_may_read_or_change_is_no_secret(mode: int, uid: int, credential: bool) -> None:
    assert open_to_others(mode, uid, credential=credential)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"hunter22")
    path.chmod(0o600)
    return path


def test_a_credential_of_systemd_lies_in_its_directory(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret.chmod(0o444)
    monkeypatch.setenv(CREDENTIALS_DIRECTORY, str(secret.parent))
    with pytest.raises(ValueError, match="may be read by others; run: chmod 600"):
        read_secret_file(secret, LIMIT)
    secret.chmod(0o440)
    assert read_secret_file(secret, LIMIT) == b"hunter22"


@pytest.mark.parametrize("elsewhere", ["", "/run/credentials"])
def test_other_files_are_no_credentials(
    secret: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    monkeypatch.setenv(CREDENTIALS_DIRECTORY, elsewhere)
    secret.chmod(0o444)

    with pytest.raises(ValueError, match="may be read by others"):
        read_secret_file(secret, LIMIT)


def test_a_large_or_missing_file_is_said(secret: Path) -> None:
    secret.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(ValueError, match=f"secret is larger than {LIMIT} bytes"):
        read_secret_file(secret, LIMIT)
    with pytest.raises(ValueError, match="none: No such file"):
        read_secret_file(secret.with_name("none"), LIMIT)


@pytest.mark.parametrize("left", [b"", bytes(32)])
def test_what_a_power_cut_left_is_no_secret(secret: Path, left: bytes) -> None:
    secret.write_bytes(left)

    with pytest.raises(ValueError, match="lost its bytes"):
        read_secret_file(secret, LIMIT)
