"""Which registries a peer serves: those of its proxies, and those that it is to read itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

RENEW_S: Final = 60.0
"""How old a list may be before a registry is refused by it."""
RENEW_UNHEARD_S: Final = 5.0


class ServedRegistries(Collection[str]):
    """Pure: time enters as `now_s` (monotonic seconds).

    The last list of each proxy counts, also while it is away. A proxy that tells none, as older
    ones do, may serve any registry: it is asked; so are those of which nothing was heard yet.
    """

    def __init__(self, proxies: Iterable[str], own: Iterable[str] = ()) -> None:
        """`proxies`: their names."""
        self._own = frozenset(own)
        self._own_by_caller = frozenset[str]()
        self._lists: dict[str, frozenset[str] | None] = {}
        self._by_caller: dict[str, frozenset[str]] = {}
        self._proxies = frozenset(proxies)
        self._asked_s: float | None = None

    def add_own(self, hosts: Iterable[str], by_caller: Iterable[str] = ()) -> None:
        """`by_caller`: those of them that decide by the credentials of each caller."""
        self._own |= frozenset(hosts)
        self._own_by_caller |= frozenset(by_caller)

    def told(
        self,
        proxy: str,
        registries: frozenset[str] | None,
        by_caller: frozenset[str] = frozenset(),
    ) -> None:
        """A proxy was heard; None: it tells no list."""
        self._lists[proxy] = registries
        self._by_caller[proxy] = by_caller

    @property
    def by_caller(self) -> frozenset[str]:
        """The registries that decide by the credentials of each caller: one proxy that says so is
        enough, as what others read there may be for nobody else."""
        return self._own_by_caller.union(*self._by_caller.values())

    def to_renew(self, now_s: float) -> bool:
        """Whether the lists are to be asked for again, as they lack a registry; then it is not for
        a while."""
        pause_s = RENEW_S if self._lists else RENEW_UNHEARD_S
        if not self._proxies or (self._asked_s is not None and now_s - self._asked_s < pause_s):
            return False
        self._asked_s = now_s
        return True

    @property
    def any_at_proxies(self) -> bool:
        """A proxy may serve what no list names."""
        return bool(self._proxies) and (not self._lists or None in self._lists.values())

    def __contains__(self, host: object) -> bool:
        return self.any_at_proxies or host in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def _known(self) -> frozenset[str]:
        return self._own.union(*(told for told in self._lists.values() if told is not None))
