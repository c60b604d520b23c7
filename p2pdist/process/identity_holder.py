"""Which certificate a daemon goes by now: read at its start, and again when other files lie there.

Whoever speaks TLS asks for it at each connection. Those that stand go on with what they began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from p2pdist.model.health import Reason
from p2pdist.model.members import Role
from p2pdist.process import clock, logs
from p2pdist.process.certificates import DAY_S, Certificate, span_text
from p2pdist.process.host_identity import (
    HostIdentity,
    Marks,
    host_identity,
    read_identity,
    seen_in,
)
from p2pdist.process.identity_files import tidy
from p2pdist.process.metrics import Sample
from p2pdist.process.revocation_keeper import RevocationKeeper, revocation_keeper
from p2pdist.settings import Settings

LOOK_EVERY_S: Final = 5.0
"""Three calls of `stat`, in a thread."""
SOON_S: Final = 7 * DAY_S
"""What is left of a certificate of a month when whoever has to renew it should have done so."""
SOON_SHARE: Final = 0.2
"""The same of one that is good for less than that."""

log = logging.getLogger(__name__)


class IdentityHolder:
    """The identity of one daemon, for the event loop; `current` is replaced, never changed."""

    def __init__(
        self,
        first: HostIdentity,
        *,
        revocations: RevocationKeeper | None = None,
        unix_s: Callable[[], float] = clock.unix_s,
    ) -> None:
        """`revocations`: who keeps `first.revoked`; without one they end with this process.
        `unix_s`: the wall clock of this host."""
        self.current = first
        self.revocations = revocations or RevocationKeeper(hosts=first.revoked)
        assert self.revocations.hosts is first.revoked
        self.trouble = ""
        """What is wrong with the files that lie there now, while `current` is of earlier ones."""
        self.taken_total = 0
        """How often files were taken up since the start."""
        self.renewal = "by hand: `p2pdist ca issue`"
        """Who renews it and when, or why nobody does."""
        self.renewals: Counter[str] = Counter()
        """How tries to have it renewed ended: "done" or "failed"."""
        self.unix_s = unix_s
        self._seen = first.seen
        self._doubted = first.seen
        """Files that were no good when they were looked at last: somebody may be writing them."""
        self._looking = asyncio.Lock()

    @property
    def spoken(self) -> HostIdentity | None:
        """What to speak TLS with now; None: in clear, as the certificate has ended (or begins
        later) and hosts without one are taken. Where they are not, the other end refuses it."""
        fault = self.current.says.fault_at(self.unix_s())
        return None if fault and not self.current.required else self.current

    @property
    def required(self) -> bool:
        return self.current.required

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def hear_revoked(self, records: Sequence[bytes]) -> None:
        """Take in what a tracker told of revoked hosts."""
        if await self.revocations.hear(records, self.current.cas):
            await self._leave_proxies()

    async def look(self) -> None:
        """Take up other files than those that were read last, if they are any good."""
        if await self.revocations.look(self.current.cas):
            await self._leave_proxies()
        async with self._looking:
            seen, found = await asyncio.to_thread(self._read)
            if found is None:
                return
            if isinstance(found, HostIdentity):
                self._take(found)
            elif seen == self._doubted:  # twice the same: nobody is writing it any more
                self._seen, self.trouble = seen, found
                logs.event(log, logging.ERROR, "identity.unread", error=found)
            else:
                self._doubted = seen

    async def _leave_proxies(self) -> None:
        """Have nothing more said on connections that were made while others were believed: who
        keeps them does so by their context."""
        async with self._looking:
            own = self.current
            with contextlib.suppress(ValueError):  # other files lie there: they are looked at
                found = await asyncio.to_thread(self._read_again, own)
                self.current = replace(own, proxies=found.proxies, trackers=found.trackers)

    def _read_again(self, own: HostIdentity) -> HostIdentity:
        role = Role(own.identity.role.value)
        return read_identity(own.directory, role, required=own.required, revoked=own.revoked)

    async def replace(self, put: Callable[[], None]) -> None:
        """Have other files put there, unseen until they are whole, and take them up. Raises what
        `put` raises, which is called in a thread."""
        async with self._looking:
            await asyncio.to_thread(put)
        await self.look()

    def _read(self) -> tuple[Marks, HostIdentity | str | None]:
        """Return what lies there by its marks, and what it is: None for what is known, or changes
        under our eyes; text: why it is no good. Blocking."""
        own = self.current
        seen = seen_in(own.directory)
        if seen == self._seen:
            return seen, None
        try:
            found = self._read_again(own)
        except ValueError as error:
            return seen, str(error)
        if seen_in(own.directory) != seen or found.seen != seen:
            return seen, None
        return seen, self._fault(found) or found

    def _fault(self, found: HostIdentity) -> str:
        who, where = self.current.identity, self.current.directory
        if found.identity != who:
            return f"{where} is for {found.identity}; until it is restarted this daemon is {who}"
        now_s = self.unix_s()
        fault = found.says.fault_at(now_s)
        # Of two that are no good the new one is what somebody wanted.
        return f"the certificate in {where} {fault}" if fault and self._good_at(now_s) else ""

    def _good_at(self, now_s: float) -> bool:
        return not self.current.says.fault_at(now_s)

    def _take(self, found: HostIdentity) -> None:
        self.current, self._seen, self._doubted, self.trouble = found, found.seen, found.seen, ""
        self.taken_total += 1
        left = span_text(found.says.ends_s - self.unix_s())
        logs.event(log, logging.INFO, "identity.taken", who=str(found.identity), good_for=left)


def identity_holder(
    settings: Settings, role: Role, unix_s: Callable[[], float] = clock.unix_s
) -> IdentityHolder | None:
    """Return the identity of this host's daemon of `role`, None where none is set.

    One that has ended is taken as well: a daemon without a certificate is better than none.
    Raises ConfigError, with the setting, the file and the fix, for one that is no good at all.
    """
    directory: Path | None = getattr(settings, role.value).identity_dir
    if directory is not None:
        with contextlib.suppress(OSError):  # what a kill left undone can be read where it lies
            tidy(directory)
    keeper = revocation_keeper(settings, role)
    found = host_identity(settings, role, keeper)
    return None if found is None else IdentityHolder(found, revocations=keeper, unix_s=unix_s)


def ends_soon(says: Certificate, now_s: float) -> bool:
    """Whether it should have been renewed by now."""
    return says.ends_s - now_s < min(SOON_S, SOON_SHARE * (says.ends_s - says.begins_s))


def identity_conditions(own: IdentityHolder | None) -> Mapping[Reason, str]:
    """What is wrong with a daemon's certificate at this moment."""
    if own is None:
        return {}
    found, now_s, says = {}, own.unix_s(), own.current.says
    if fault := says.fault_at(now_s):
        alone = "no tracker takes this host" if own.required else "under the cluster secret alone"
        found[Reason.IDENTITY_ENDS] = f"the certificate {fault}: {alone}"
    elif ends_soon(says, now_s):
        text = f"the certificate ends in {span_text(says.ends_s - now_s)}"
        found[Reason.IDENTITY_ENDS] = f"{text}; renewal: {own.renewal}"
    if own.trouble:
        found[Reason.IDENTITY_UNREAD] = f"{own.trouble}; the one before it is in use"
    elif left_out := own.revocations.trouble or own.current.revoked.trouble:
        found[Reason.IDENTITY_UNREAD] = f"revoked hosts: {left_out}; all others are known"
    if why := own.current.revoked.why(own.current.identity.host_id):
        found[Reason.IDENTITY_REVOKED] = f"{why}: it is this one, and others refuse it"
    return found


def identity_status(own: IdentityHolder | None) -> dict[str, Any]:
    """For `/api/v1/status`."""
    if own is None:
        return {"identity": None}
    says, who = own.current.says, own.current.identity
    told: dict[str, Any] = {"role": who.role.value, "host_id": who.host_id}
    told |= {"ends_unix_s": round(says.ends_s), "required": own.required}
    told["revoked_hosts"] = len(own.current.revoked)
    return {"identity": {**told, "renewal": own.renewal, "trouble": own.trouble}}


def identity_samples(own: IdentityHolder | None) -> Iterable[Sample]:
    if own is not None:
        text = "Until the certificate of this daemon ends; negative: since it has."
        left_s = own.current.says.ends_s - own.unix_s()
        yield Sample("p2pdist_identity_expires_seconds", "gauge", text, {}, left_s)
        text = "Certificates that were taken up without a restart."
        yield Sample("p2pdist_identity_taken_total", "counter", text, {}, own.taken_total)
        text = "Hosts whose certificates count for nothing here: the same number at all daemons."
        revoked = len(own.current.revoked)
        yield Sample("p2pdist_identity_revoked_hosts", "gauge", text, {}, revoked)
        text = "Tries to have the certificate of this daemon renewed."
        for result in ("done", "failed"):
            labels, count = {"result": result}, own.renewals[result]
            yield Sample("p2pdist_identity_renewals_total", "counter", text, labels, count)
