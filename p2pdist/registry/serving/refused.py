"""Requests that a registry endpoint could not serve: counted by reason, said once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.model.seldom import Seldom
from p2pdist.oci.refusals import fix_of, without_fix
from p2pdist.process import audit, logs
from p2pdist.process.metrics import Sample

log = logging.getLogger(__name__)


class RefusedRequests:
    """One of an endpoint."""

    def __init__(self) -> None:
        self._counts: Counter[ErrorReason] = Counter()
        self._seldom: Seldom[tuple[ErrorReason, str]] = Seldom()

    def note(self, registry: str, error: RegistryError) -> None:
        """`registry` may be anything that a client made up."""
        reason = error.reason
        if reason is None:
            return
        self._counts[reason] += 1
        # Whoever makes up registries gets one line for all of them.
        key = (reason, "" if reason is ErrorReason.NOT_LISTED else registry)
        if requests := self._seldom.happened(key, asyncio.get_running_loop().time()):
            level = logging.INFO if reason is ErrorReason.UNKNOWN else logging.WARNING
            logs.event(
                log, level, "registry.refused", registry=registry, reason=reason,
                error=without_fix(reason, registry, str(error)), fix=fix_of(reason, registry),
                requests=requests,
            )  # fmt: skip

    def stranger(self, client: str, error: RegistryError) -> None:
        """`client`, an address, may ask nothing here, whatever it is."""
        assert error.reason is not None
        self._counts[error.reason] += 1
        if requests := self._seldom.happened(
            (error.reason, client), asyncio.get_running_loop().time()
        ):
            logs.event(
                audit.log, logging.WARNING, "client.refused", audit="refused", who=audit.NOBODY,
                peer=client, client=client, reason=error.reason, fix=fix_of(error.reason, ""),
                requests=requests,
            )  # fmt: skip

    def samples(self) -> Iterator[Sample]:
        for reason in ErrorReason:
            yield Sample(
                "p2pdist_requests_refused_total", "counter",
                "Registry requests that were not served, by reason.",
                {"reason": reason}, self._counts[reason],
            )  # fmt: skip
