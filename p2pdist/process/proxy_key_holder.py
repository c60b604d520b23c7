"""Which proxies' public keys a daemon believes now: those of its settings, and of
`cluster.proxy_keys_file`, which is read again when another one lies there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pdist.model.health import Reason
from p2pdist.model.statements import Keyring, key_id
from p2pdist.process import logs
from p2pdist.process.files import Mark, mark_of
from p2pdist.process.identity import proxy_keys
from p2pdist.process.metrics import Sample
from p2pdist.process.watched_file import WatchedFile
from p2pdist.settings import Settings

log = logging.getLogger(__name__)

Keys = tuple[bytes, ...]


class ProxyKeyHolder(WatchedFile[Keys]):
    """The keys of one daemon, for the event loop; `keyring` follows them."""

    def __init__(
        self,
        path: Path | None,
        first: Sequence[bytes],
        seen: Mark | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        """`settings`: those that name `path`, and keys beside it."""
        super().__init__(path, tuple(first), seen)
        self.keyring = Keyring(first)
        self._settings = settings or Settings()
        self._own: Keys = ()

    def believed(self) -> Keys:
        """Without our own."""
        return self._current

    def sign_with(self, own: bytes) -> None:
        """This host signs with the private half of `own`: it believes that, whoever else does."""
        self._own = (own,)
        self._follow()

    def load(self, path: Path) -> Keys:
        return tuple(proxy_keys(self._settings))

    def same(self, found: Keys) -> bool:
        return set(found) == set(self._current)

    def take(self, found: Keys) -> None:
        super().take(found)
        self._follow()

    def _follow(self) -> None:
        self.keyring.replace([*self._current, *self._own])

    @property
    def ids(self) -> list[str]:
        return sorted({key_id(key).hex() for key in self._current})

    def say_taken(self) -> None:
        logs.event(log, logging.INFO, "proxy-keys.taken", believed=" ".join(self.ids))

    def say_unread(self) -> None:
        logs.event(log, logging.ERROR, "proxy-keys.unread", error=self.trouble)


def proxy_key_holder(settings: Settings) -> ProxyKeyHolder:
    """Return the keys that this host believes; raise ConfigError as `proxy_keys` does."""
    path = settings.cluster.proxy_keys_file
    seen = None if path is None else mark_of(path)  # before it is read: a change is seen later
    return ProxyKeyHolder(path, proxy_keys(settings), seen, settings=settings)


def proxy_key_conditions(own: ProxyKeyHolder) -> Mapping[Reason, str]:
    """What is wrong with the file at this moment."""
    if not own.trouble:
        return {}
    return {Reason.PROXY_KEYS_UNREAD: f"{own.trouble}; what was read before is in use"}


def proxy_key_status(own: ProxyKeyHolder) -> dict[str, Any]:
    """For `/api/v1/status`: ids of keys, as `wrong_proxy_key` names them."""
    return {"proxy_keys": {"ids": own.ids, "trouble": own.trouble}}


def proxy_key_samples(own: ProxyKeyHolder) -> Iterable[Sample]:
    text = "Proxies' public keys that this daemon believes."
    yield Sample("p2pdist_proxy_keys", "gauge", text, {}, len(own.ids))
    text = "Files with proxies' public keys that were taken up without a restart."
    yield Sample("p2pdist_proxy_keys_taken_total", "counter", text, {}, own.taken_total)
