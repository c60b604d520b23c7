"""Which cluster secrets a daemon believes now: read at its start, and again when another file lies
there.

Links and control connections that stand go on for as long as the secret that they were begun under
is in the file, and are cut once it is not: whoever took it away wants nobody here who has no more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.health import Reason
from p2pdist.process import logs
from p2pdist.process.files import mark_of
from p2pdist.process.identity import read_secrets
from p2pdist.process.metrics import Sample
from p2pdist.process.watched_file import WatchedFile
from p2pdist.settings import Settings

log = logging.getLogger(__name__)


class SecretHolder(WatchedFile[ClusterSecrets]):
    """The cluster secrets of one daemon, for the event loop."""

    def believed(self) -> ClusterSecrets:
        return self._current

    def load(self, path: Path) -> ClusterSecrets:
        return read_secrets(path)

    def say_taken(self) -> None:
        logs.event(log, logging.INFO, "secret.taken", believed=str(self._current))

    def say_unread(self) -> None:
        logs.event(log, logging.ERROR, "secret.unread", error=self.trouble)


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
