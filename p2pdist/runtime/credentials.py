"""The account of an upstream, read when it is needed: files are replaced, tokens of helpers end."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pdist.errors import UpstreamError
from p2pdist.oci.credential_files import (
    AUTH_FILE_BYTES_MAX,
    HELPER_ANSWER_BYTES_MAX,
    Account,
    Helper,
    account_in,
    account_told,
)
from p2pdist.runtime.secret_files import read_secret_file

PASSWORD_FILE_BYTES_MAX: Final = 4096
# Registries that take an account as it is may answer 403 to one that ended, as ECR does after 12
# hours; nobody minds a helper that is asked six times an hour.
LIFE_S: Final = 600.0
# A wrong account is looked up anew so often at most, however many pulls fail for it.
REJECTED_PAUSE_S: Final = 5.0
HELPER_S: Final = 10.0


class Credentials:
    """One account. `read` may block and raises ValueError with a text that quotes no secret."""

    def __init__(self, whose: str, read: Callable[[], Account]) -> None:
        """`whose`: what the account is for, for people."""
        self._whose = whose
        self._read = read
        self._lock = asyncio.Lock()
        self._account: Account | None = None
        self._read_s = 0.0

    async def account(self, *, rejected: Account | None = None) -> Account:
        """Return what is known, looked up anew after a while, or if it is what was `rejected`.

        Raises UpstreamError 401 where there is no account any more.
        """
        async with self._lock:
            age_s = asyncio.get_running_loop().time() - self._read_s
            refused = rejected is not None and rejected == self._account
            if self._account is None or age_s > (REJECTED_PAUSE_S if refused else LIFE_S):
                self._account = await self._look_up()
                self._read_s = asyncio.get_running_loop().time()
            return self._account

    async def _look_up(self) -> Account:
        try:
            return await asyncio.to_thread(self._read)
        except ValueError as error:
            raise UpstreamError(f"no account for {self._whose}: {error}", status=401) from None


def fixed(username: str, password: str) -> Credentials:
    """An account that stays as it is."""
    account = Account(username, password)
    return Credentials(username, lambda: account)


def from_password_file(username: str, path: Path) -> Account:
    """Raises ValueError."""
    data = read_secret_file(path, PASSWORD_FILE_BYTES_MAX)
    try:
        return Account(username, data.decode().strip())
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text") from None


def from_auth_file(path: Path, host: str) -> Account:
    """Raises ValueError."""
    found = entry_in_auth_file(path, host)
    return ask_helper(found) if isinstance(found, Helper) else found


def entry_in_auth_file(path: Path, host: str) -> Account | Helper:
    """What the file says, without asking a helper. Raises ValueError."""
    try:
        return account_in(read_secret_file(path, AUTH_FILE_BYTES_MAX), host)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path} {text}") from None


def find_helper(helper: Helper) -> None:
    """Raise ValueError where the program is not there: better now than at the first pull."""
    if shutil.which(_program(helper)) is None:
        raise ValueError(f"{_program(helper)} is not on the PATH")


def _program(helper: Helper) -> str:
    return f"docker-credential-{helper.name}"


def ask_helper(helper: Helper) -> Account:
    """Run `docker-credential-NAME get`; raises ValueError, which quotes nothing that it said."""
    program = _program(helper)
    try:
        done = subprocess.run(  # noqa: S603  # the operator named it, or the file that does
            [program, "get"],
            input=helper.key.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_S,
            check=False,
        )
    except FileNotFoundError:
        raise ValueError(f"{program} is not on the PATH") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{program} did not answer within {HELPER_S:g} s") from None
    except OSError as error:
        raise ValueError(f"{program}: {error.strerror}") from None
    if done.returncode != 0:
        raise ValueError(f"{program} knows no account for {helper.key}")
    try:
        return account_told(done.stdout[:HELPER_ANSWER_BYTES_MAX])
    except ValueError as error:
        raise ValueError(f"{program} {error}") from None
