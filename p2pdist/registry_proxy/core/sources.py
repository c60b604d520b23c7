"""In which order a proxy looks for a blob: the swarm, other datacenters, the registry.

| event | from phase | to phase | order |
| --- | --- | --- | --- |
| Leased, and hosts of this datacenter hold some | OFF | SWARM | FollowSwarm |
| Leased; Looked: it stands still; and there are parents | OFF, SWARM | INTRODUCING | Introduce |
| Introduced | INTRODUCING | PARENTS | FollowParents |
| the same without parents; not introduced; Looked: it stands still | ... | ORIGIN | AskOrigin |
| OriginTold | ORIGIN | REGISTRY | ReadRegistry |
| any that shows the blob whole or failed; RegistryRead | any | OVER | Stop |

Each later source costs more of what all share: the link between datacenters, then the registry.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, assert_never

from p2pdist.registry_proxy.core.following import BlobView, Following
from p2pdist.registry_proxy.core.leasing import SOURCE_SILENCE_S

# What peers of the datacenter hold comes at once or not at all.
SWARM_SILENCE_S: Final = 1.0
# A parent that does not know the blob asks its registry for the size first: it gets as long as a
# source that brings nothing.
INTRODUCE_S: Final = SOURCE_SILENCE_S


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leased:
    """The lease of the datacenter was got, or is done without."""

    granted: bool
    holders: int
    """Hosts of the datacenter that hold some of the blob."""
    view: BlobView


@dataclass(frozen=True, slots=True)
class Looked:
    """Something changed, or it is time to look."""

    view: BlobView


@dataclass(frozen=True, slots=True)
class Introduced:
    """A parent will give it; or none has it to give."""

    found: bool
    view: BlobView


@dataclass(frozen=True, slots=True)
class OriginTold:
    """Whether the right of all datacenters to read the registry was granted."""

    granted: bool
    view: BlobView


@dataclass(frozen=True, slots=True)
class RegistryRead:
    """All that was to be had of the registry was had."""


Event = Leased | Looked | Introduced | OriginTold | RegistryRead

# --- orders ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FollowSwarm:
    """Take part in the swarm of this datacenter; answer with `Looked`."""


@dataclass(frozen=True, slots=True)
class Introduce:
    """Tell the parents where the blob lies; answer with `Introduced`."""

    timeout_s: float
    """For each word to one of them."""


@dataclass(frozen=True, slots=True)
class FollowParents:
    """Ask the parents for its chunks; answer with `Looked`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer with `Looked`, at the latest at `next_deadline_s`."""


@dataclass(frozen=True, slots=True)
class AskOrigin:
    """Answer with `OriginTold`."""


@dataclass(frozen=True, slots=True)
class ReadRegistry:
    """Answer with `RegistryRead`."""

    alone: bool
    """The leases say that nobody else reads it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing is left to do: the blob is whole, has failed, or no source brings more."""


Order = FollowSwarm | Introduce | FollowParents | Wait | AskOrigin | ReadRegistry | Stop


class Phase(enum.Enum):
    OFF = enum.auto()
    SWARM = enum.auto()
    INTRODUCING = enum.auto()
    PARENTS = enum.auto()
    ORIGIN = enum.auto()
    REGISTRY = enum.auto()
    OVER = enum.auto()


class SourcesCore:
    """The search for one blob. Pure: time enters as monotonic `now_s`. Each event is the answer to
    the last order; no source is asked twice."""

    def __init__(self, *, parents: bool) -> None:
        """`parents`: proxies of other datacenters are to be asked before the registry."""
        self.phase = Phase.OFF
        self._parents = parents
        self._leased = False
        self._following: Following | None = None

    def handle(self, event: Event, now_s: float) -> Order:
        if isinstance(event, RegistryRead):
            assert self.phase is Phase.REGISTRY
            return self._stop()
        if event.view.over:
            return self._stop()
        match event:
            case Leased(granted, holders):
                assert self.phase is Phase.OFF
                self._leased = granted
                if holders:  # after a takeover, or an eviction here
                    self._follow(Phase.SWARM, SWARM_SILENCE_S, now_s)
                    return FollowSwarm()
                return self._beyond_swarm()
            case Looked(view):
                return self._look(view, now_s)
            case Introduced(found):
                assert self.phase is Phase.INTRODUCING
                if not found:
                    return self._origin()
                self._follow(Phase.PARENTS, SOURCE_SILENCE_S, now_s)
                return FollowParents()
            case OriginTold(granted):
                assert self.phase is Phase.ORIGIN
                self.phase = Phase.REGISTRY
                return ReadRegistry(alone=granted and self._leased)
            case _:
                assert_never(event)

    def next_deadline_s(self) -> float | None:
        return self._following.due_s if self._following is not None else None

    def _follow(self, phase: Phase, silence_s: float, now_s: float) -> None:
        self.phase, self._following = phase, Following(silence_s, now_s)

    def _look(self, view: BlobView, now_s: float) -> Order:
        assert self._following is not None
        if self._following.look(view, now_s) is None:
            return Wait()
        self._following = None
        return self._beyond_swarm() if self.phase is Phase.SWARM else self._origin()

    def _beyond_swarm(self) -> Order:
        if not self._parents:
            return self._origin()
        self.phase = Phase.INTRODUCING
        return Introduce(INTRODUCE_S)

    def _origin(self) -> Order:
        self.phase = Phase.ORIGIN
        return AskOrigin()

    def _stop(self) -> Stop:
        self.phase, self._following = Phase.OVER, None
        return Stop()

    def validate(self) -> None:
        waits = self.phase in (Phase.SWARM, Phase.PARENTS)
        assert (self._following is not None) == waits
        assert (self.next_deadline_s() is not None) == waits, "who waits has a deadline"
        assert self._parents or self.phase not in (Phase.INTRODUCING, Phase.PARENTS)
