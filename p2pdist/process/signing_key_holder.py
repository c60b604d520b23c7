"""Which key a proxy signs with now: read at its start, and again when another file lies there.

Another key is taken up once its public half is among those that this host believes: else a key that
was changed too early, or by mistake, would have all hosts refuse what this proxy says.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from p2pdist.errors import ConfigError
from p2pdist.model.health import Reason
from p2pdist.model.statements import Signer, key_id
from p2pdist.process import logs
from p2pdist.process.files import Mark, mark_of
from p2pdist.process.identity import read_signer
from p2pdist.process.metrics import Sample
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.process.watched_file import WatchedFile
from p2pdist.settings import Settings

log = logging.getLogger(__name__)


class SigningKeyHolder(WatchedFile[Signer]):
    """The signer of one proxy, for the event loop: one for all who sign, whatever its key."""

    def __init__(
        self, path: Path, signer: Signer, seen: Mark | None, believed: ProxyKeyHolder
    ) -> None:
        super().__init__(path, signer, seen)
        self.signer = signer
        self._believed = believed
        believed.sign_with(signer.public_key_bytes)
        believed.on_taken.append(self._keys_changed)

    @property
    def id(self) -> str:
        return key_id(self.signer.public_key_bytes).hex()

    def load(self, path: Path) -> Signer:
        found = read_signer(path)
        public = found.public_key_bytes
        if public not in (self.signer.public_key_bytes, *self._believed.believed()):
            text = base64.b64encode(public).decode()
            raise ConfigError(
                f"{path}: its public half {text} is not among cluster.proxy_keys of this host, nor"
                " in its cluster.proxy_keys_file"
            )
        return found

    def same(self, found: Signer) -> bool:
        return found.public_key_bytes == self.signer.public_key_bytes

    def take(self, found: Signer) -> None:
        self.signer.turn_to(found)
        self._believed.sign_with(found.public_key_bytes)

    async def _keys_changed(self) -> None:
        self.look_anew()

    def say_taken(self) -> None:
        logs.event(log, logging.INFO, "signing-key.taken", key=self.id)

    def say_unread(self) -> None:
        logs.event(log, logging.ERROR, "signing-key.unread", error=self.trouble)


def signing_key_holder(settings: Settings, believed: ProxyKeyHolder) -> SigningKeyHolder:
    """Return the signing key of this proxy; raise ConfigError where there is none."""
    path = settings.proxy.key_file
    seen = None if path is None else mark_of(path)  # before it is read: a change is seen later
    signer = read_signer(path)
    assert path is not None
    return SigningKeyHolder(path, signer, seen, believed)


def signing_key_conditions(own: SigningKeyHolder) -> Mapping[Reason, str]:
    """What is wrong with the file at this moment."""
    if not own.trouble:
        return {}
    return {Reason.SIGNING_KEY_UNREAD: f"{own.trouble}; it signs with {own.id} as before"}


def signing_key_status(own: SigningKeyHolder) -> dict[str, Any]:
    """For `/api/v1/status`."""
    return {"signing_key": {"id": own.id, "trouble": own.trouble}}


def signing_key_samples(own: SigningKeyHolder) -> Iterable[Sample]:
    text = "Files with a signing key that were taken up without a restart."
    yield Sample("p2pdist_signing_key_taken_total", "counter", text, {}, own.taken_total)
