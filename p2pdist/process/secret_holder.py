"""Which cluster secrets a daemon believes now: read at its start, and again when another file lies
there.

Links and control connections that stand go on for as long as the secret that they were begun under
is in the file, and are cut once it is not: whoever took it away wants nobody here who has no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from p2pdist.errors import ConfigError
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.health import Reason
from p2pdist.process import logs
from p2pdist.process.files import Mark, mark_of
from p2pdist.process.identity import read_secrets
from p2pdist.process.metrics import Sample
from p2pdist.settings import Settings

LOOK_EVERY_S: Final = 5.0
"""One call of `stat`, in a thread."""

log = logging.getLogger(__name__)


class SecretHolder:
    """The cluster secrets of one daemon, for the event loop."""

    def __init__(self, path: Path, first: ClusterSecrets, seen: Mark | None = None) -> None:
        """`seen`: the marks of `path` when `first` was read from it; None: there is no file."""
        self._path = path
        self._current = first
        self.trouble = ""
        """What is wrong with the file that lies there now, while those of an earlier one hold."""
        self.taken_total = 0
        """How often a file was taken up since the start."""
        self.on_taken: list[Callable[[], Awaitable[None]]] = []
        """Who cuts what others are not believed any more for."""
        self._seen = seen
        self._doubted = seen
        """The file that was looked at last: somebody may be writing it."""

    def believed(self) -> ClusterSecrets:
        return self._current

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take up another file than the one that was read last, if it is any good.

        At the second look only, when it has not changed since the first: half a secret is one, too.
        """
        seen, found = await asyncio.to_thread(self._read)
        if found is None:
            return
        if seen != self._doubted:
            self._doubted = seen
        elif isinstance(found, ClusterSecrets):
            self._seen = seen
            await self._take(found)
        else:
            self._seen, self.trouble = seen, found
            logs.event(log, logging.ERROR, "secret.unread", error=found)

    def _read(self) -> tuple[Mark | None, ClusterSecrets | str | None]:
        """Return what lies there by its marks, and what it is: None for what is known, or changes
        under our eyes; text: why it is no good. Blocking."""
        seen = mark_of(self._path)
        if seen == self._seen:
            return seen, None
        found: ClusterSecrets | str
        try:
            found = read_secrets(self._path)
        except ConfigError as error:
            found = str(error)
        return seen, found if mark_of(self._path) == seen else None

    async def _take(self, found: ClusterSecrets) -> None:
        self.trouble = ""
        if found == self._current:  # touched
            return
        self._current = found
        self.taken_total += 1
        logs.event(log, logging.INFO, "secret.taken", believed=str(found))
        for told in self.on_taken:
            await told()


def secret_holder(settings: Settings) -> SecretHolder:
    """Return the secrets of this host; raise ConfigError where there are none."""
    path = settings.cluster.secret_file
    seen = None if path is None else mark_of(path)  # before it is read: a change is seen later
    secrets = read_secrets(path)
    assert path is not None
    return SecretHolder(path, secrets, seen)


def secret_conditions(own: SecretHolder) -> Mapping[Reason, str]:
    """What is wrong with the file at this moment."""
    if not own.trouble:
        return {}
    return {Reason.SECRET_UNREAD: f"{own.trouble}; what was read before is in use"}


def secret_status(own: SecretHolder) -> dict[str, Any]:
    """For `/api/v1/status`: fingerprints, the first one first."""
    told = {"fingerprints": list(own.believed().fingerprints), "trouble": own.trouble}
    return {"cluster_secret": told}


def secret_samples(own: SecretHolder) -> Iterable[Sample]:
    text = "1 for each cluster secret that this daemon believes, by a keyed hash of 24 bits."
    for place, fingerprint in zip(("first", "second"), own.believed().fingerprints, strict=False):
        labels = {"place": place, "fingerprint": fingerprint}
        yield Sample("p2pdist_cluster_secret", "gauge", text, labels, 1)
    text = "Files with cluster secrets that were taken up without a restart."
    yield Sample("p2pdist_cluster_secret_taken_total", "counter", text, {}, own.taken_total)
