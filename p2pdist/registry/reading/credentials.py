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
from p2pdist.process.secret_files import read_secret_file

PASSWORD_FILE_BYTES_MAX: Final = 4096
# Registries that take an account as it is may answer 403 to one that ended, as ECR does after 12
# hours; nobody minds a helper that is asked six times an hour.
LIFE_S: Final = 600.0
# After one that was refused or not found the next look-up waits for so long, however many pulls
# fail for it: each may run a program for ten seconds.
RETRY_S: Final = 5.0
HELPER_S: Final = 10.0


class Credentials:
    """One account. `read` may block and raises ValueError with a text that quotes no secret."""

    def __init__(self, whose: str, read: Callable[[], Account]) -> None:
        """`whose`: what the account is for, for people."""
        self._whose = whose
        self._read = read
        self._lock = asyncio.Lock()
        self._account: Account | None = None
        self._failure = ""
        """Why the last look-up gave none."""
        self._looked_s = -LIFE_S

    async def account(self, *, rejected: Account | None = None) -> Account:
        """Return what is known, looked up anew after a while, or if it is what was `rejected`.

        What cannot be looked up any more is used until somebody refuses it. Raises UpstreamError
        401 where none was ever found.
        """
        async with self._lock:
            refused = rejected is not None and rejected == self._account
            pause_s = RETRY_S if refused or self._failure else LIFE_S
            if asyncio.get_running_loop().time() - self._looked_s >= pause_s:
                await self._look_up()
            if self._account is None:
                text = f"no account for {self._whose}: {self._failure}"
                raise UpstreamError(text, status=401)
            return self._account

    async def _look_up(self) -> None:
        try:
            self._account, self._failure = await asyncio.to_thread(self._read), ""
        except ValueError as error:
            self._failure = str(error)
        self._looked_s = asyncio.get_running_loop().time()


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
