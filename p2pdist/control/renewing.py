"""Has the certificate of a daemon renewed in time: `core.renewal` says when, here it is done."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from p2pdist.control.core.renewal import RenewalPlan
from p2pdist.model.control import Renewed
from p2pdist.model.identity import IdentityRole
from p2pdist.model.members import Role
from p2pdist.process import logs
from p2pdist.process.host_identity import HostIdentity, read_identity
from p2pdist.process.identity_files import can_write, put_in_place
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.requests import Request, new_request

LOOK_EVERY_S: Final = 5.0
RENEWAL_S: Final = 30.0
"""How long the tracker's answer is waited for: it signs one after the other."""

log = logging.getLogger(__name__)


class Renewing:
    """Of one daemon. The new key is made here and leaves this host in no form."""

    def __init__(
        self,
        own: IdentityHolder,
        ask: Callable[[bytes], Awaitable[Renewed | None]],
        able: Callable[[], bool],
        rng: Random,
        show: Callable[[], bool] = lambda: False,
    ) -> None:
        """`ask` has a request signed; None: nobody answered. `able`: there is somebody to ask.
        `show`: let who is asked see the certificate of today first; whether that takes its time."""
        self._show = show
        self._own = own
        self._ask = ask
        self._able = able
        self._plan = RenewalPlan(rng)
        self._followed: HostIdentity | None = None
        self._failed = ""

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Renew the certificate if it is time to."""
        own = self._own
        if own.current is not self._followed:
            self._followed, self._failed = own.current, ""
            self._plan.follow(own.current.says.begins_s, own.current.says.ends_s)
        able, now_s = self._able(), own.unix_s()
        if self._plan.due(now_s, able=able) and not self._show():
            await self._try()
        own.renewal = self._told(able=able)

    def _told(self, *, able: bool) -> str:
        at = datetime.fromtimestamp(self._plan.at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if self._failed:
            return f"{self._failed}; next try {at}"
        if able:
            return f"by itself, {at}"
        by_hand = "without one by hand, `p2pdist ca issue`"
        return f"by itself, once a tracker that renews is connected; {by_hand}"

    async def _try(self) -> None:
        try:
            await self._renew()
        except (OSError, ValueError) as error:
            self._fail(str(error))

    async def _renew(self) -> None:
        directory = self._own.current.directory
        if not await asyncio.to_thread(can_write, directory):
            self._fail(f"this daemon's user may not write {directory}")
            return
        request = await asyncio.to_thread(new_request)
        answer = await self._ask(request.der)
        if answer is None:
            self._fail("the tracker did not answer")
        elif not answer.certificate:
            self._fail(f"the tracker refused: {answer.reason}", answer.retry_s)
        else:
            await self._own.replace(partial(self._put, request, answer))
            self._own.renewals["done"] += 1

    def _put(self, request: Request, answer: Renewed) -> None:
        own = self._own.current
        role = Role(own.identity.role.value)
        put_next(own, request, answer, role=role, now_s=self._own.unix_s())

    def _fail(self, why: str, retry_s: float = 0.0) -> None:
        self._plan.failed(self._own.unix_s(), retry_s=retry_s)
        self._failed = why
        self._own.renewals["failed"] += 1
        logs.event(log, logging.WARNING, "identity.not_renewed", error=why)


def put_next(
    own: HostIdentity, request: Request, answer: Renewed, *, role: Role | IdentityRole, now_s: float
) -> None:
    """Put what a tracker signed in the place of `own`. Blocking. Raises ValueError for an answer
    that is no good, OSError."""
    # Where there is nothing new, what somebody puts there now is not undone: a tracker, which
    # answers itself, has its CAs from nowhere else.
    same = answer.cas == list(own.cas)
    put_in_place(
        own.directory,
        ca=None if same else b"".join(map(_pem, answer.cas)),
        cert=_pem(answer.certificate),
        key=request.key,
        check=partial(_check, own, role, now_s),
    )


def _check(own: HostIdentity, role: Role | IdentityRole, now_s: float, place: Path) -> None:
    """Whatever the tracker sent: raise ValueError unless it is our next certificate."""
    found = read_identity(place, role, required=own.required)
    if found.identity != own.identity:
        raise ValueError(f"the tracker sent a certificate for {found.identity}")
    if fault := found.says.fault_at(now_s):
        raise ValueError(f"the tracker sent a certificate that {fault}")
    if found.says.ends_s <= own.says.ends_s:
        raise ValueError("the tracker sent a certificate that ends no later")


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()
