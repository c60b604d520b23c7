"""How one lease is got: asked for, waited for while its holder brings the blob, or done without.

| event | from phase | to phase | order |
| --- | --- | --- | --- |
| Started | OFF | ASKING | Ask |
| Answered: granted | ASKING | USED | Use |
| Answered: granted, and somebody else had it before (origin) | ASKING | REACHING | Copy |
| Answered: refused, somebody holds it | ASKING | REACHING | Copy |
| Answered: nobody can say | ASKING | USED | Use, without a grant |
| Reached | REACHING | COPYING | Wait |
| NotReached; Looked: it brings nothing | REACHING, COPYING | PAUSING | Wait |
| the same, in vain for too long, or with a grant | REACHING, COPYING | USED | Use |
| Looked: the blob is whole or has failed | COPYING, PAUSING | USED | Use |
| Looked, after the pause | PAUSING | ASKING | Ask |
| `end` | any | OVER | the grant is given back |

A lease spares duplicates, it is no condition of a pull: every way ends in Use.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final, assert_never

from p2pdist.model.control import LeaseAnswer
from p2pdist.model.members import Member
from p2pdist.registry_proxy.core.following import BlobView, Following

# Within a datacenter the tracker answers in a millisecond; another one's gets its 0.5 s.
ASK_S: Final = 0.5
ASK_ORIGIN_S: Final = 1.0
# How long a source may bring nothing until the next one is asked (registry contract 3.7: origin
# after 2 s, so that a client still gets its first byte within 5 s). A slow source is not silent,
# whatever its rate: any byte counts.
SOURCE_SILENCE_S: Final = 2.0
# A holder that cannot be reached has most likely died, which its tracker knows a moment later.
ASK_AGAIN_S: Final = 0.2
# How long holders may be copied from in vain, whoever of them: as long as one source.
IN_VAIN_S: Final = SOURCE_SILENCE_S


class Kind(enum.Enum):
    DATACENTER = enum.auto()
    """The right of this datacenter to bring a blob in from outside."""
    ORIGIN = enum.auto()
    """The right of all datacenters to read it from its registry."""


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    view: BlobView


@dataclass(frozen=True, slots=True)
class Answered:
    """None: no tracker answered in time."""

    answer: LeaseAnswer | None
    view: BlobView


@dataclass(frozen=True, slots=True)
class Reached:
    """The holder is asked for the blob."""

    view: BlobView


@dataclass(frozen=True, slots=True)
class NotReached:
    view: BlobView


@dataclass(frozen=True, slots=True)
class Looked:
    """Something changed, or it is time to look."""

    view: BlobView
    source_gone: bool = False
    """The link to the holder has ended."""


Event = Started | Answered | Reached | NotReached | Looked

# --- orders ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer with `Answered`."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Copy:
    """Ask `holder` for the blob; answer with `Reached` or `NotReached`."""

    holder: Member


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer with `Looked`, at the latest at `next_deadline_s`."""


@dataclass(frozen=True, slots=True)
class Use:
    """Go ahead, with a grant or without (`fence` 0); `end` when that is over."""

    fence: int = 0
    holders: int = 0
    """Hosts of the datacenter that hold some of the blob."""
    holder_silent: bool = False
    """Others have the lease and bring nothing."""


Order = Ask | Copy | Wait | Use


class Phase(enum.Enum):
    OFF = enum.auto()
    ASKING = enum.auto()
    REACHING = enum.auto()
    COPYING = enum.auto()
    PAUSING = enum.auto()
    USED = enum.auto()
    OVER = enum.auto()


class LeaseCore:
    """One lease of one blob. Pure: time enters as monotonic `now_s`.

    Each event but `end` is the answer to the last order. At most one grant is held, and `end` gives
    it back once, whatever the phase.
    """

    def __init__(self, kind: Kind) -> None:
        self.phase = Phase.OFF
        self._kind = kind
        self._grant: LeaseAnswer | None = None
        self._following: Following | None = None
        self._again_at_s: float | None = None
        self._in_vain_until_s = math.inf
        self._had_chunks = 0
        """When the last holder was asked."""

    def handle(self, event: Event, now_s: float) -> Order:
        match event:
            case Started(view):
                self._pass(Phase.OFF)
                self._in_vain_until_s = now_s + IN_VAIN_S
                return self._use() if view.over else self._ask()
            case Answered(answer, view):
                return self._answered(answer, view)
            case Reached():
                self._pass(Phase.REACHING)
                self.phase = Phase.COPYING
                self._following = Following(SOURCE_SILENCE_S, now_s)
                return self._look(event.view, now_s, source_gone=False)
            case NotReached(view):
                self._pass(Phase.REACHING)
                return self._in_vain(view, now_s)
            case Looked(view, source_gone):
                if self.phase is Phase.PAUSING:
                    return self._paused(view, now_s)
                return self._look(view, now_s, source_gone=source_gone)
            case _:
                assert_never(event)

    def end(self) -> int | None:
        """The use is over, or nobody waits for it; return the fence to give back, once."""
        grant, self._grant = self._grant, None
        self.phase, self._following, self._again_at_s = Phase.OVER, None, None
        return grant.fence if grant is not None else None

    def next_deadline_s(self) -> float | None:
        return self._following.due_s if self._following is not None else self._again_at_s

    def _pass(self, expected: Phase) -> None:
        assert self.phase is expected, f"{self.phase} where {expected} was to be"

    def _ask(self) -> Ask:
        self.phase = Phase.ASKING
        return Ask(ASK_ORIGIN_S if self._kind is Kind.ORIGIN else ASK_S)

    def _answered(self, answer: LeaseAnswer | None, view: BlobView) -> Order:
        self._pass(Phase.ASKING)
        if answer is not None and answer.fence:
            self._grant = answer
        if answer is None or answer.holder is None or view.over:
            return self._use()
        # Beside a grant: the datacenter of whoever read the registry last most likely holds the
        # blob still. Within a datacenter the swarm is asked instead, of which the holder is one.
        if self._grant is not None and self._kind is Kind.DATACENTER:
            return self._use()
        self.phase = Phase.REACHING
        self._had_chunks = view.prefix_chunks
        return Copy(answer.holder)

    def _look(self, view: BlobView, now_s: float, *, source_gone: bool) -> Order:
        self._pass(Phase.COPYING)
        assert self._following is not None
        whole = self._following.look(view, now_s, source_gone=source_gone)
        if whole is None:
            return Wait()
        return self._use() if whole else self._in_vain(view, now_s)

    def _in_vain(self, view: BlobView, now_s: float) -> Order:
        self._following = None
        if view.over or self._grant is not None:
            return self._use()
        if view.prefix_chunks > self._had_chunks:
            self._in_vain_until_s = now_s + IN_VAIN_S
        if now_s >= self._in_vain_until_s:
            return self._use(holder_silent=True)
        self.phase, self._again_at_s = Phase.PAUSING, now_s + ASK_AGAIN_S
        return Wait()

    def _paused(self, view: BlobView, now_s: float) -> Order:
        assert self._again_at_s is not None
        if not view.over and now_s < self._again_at_s:
            return Wait()
        self._again_at_s = None
        return self._use() if view.over else self._ask()

    def _use(self, *, holder_silent: bool = False) -> Use:
        self.phase, self._following, self._again_at_s = Phase.USED, None, None
        if self._grant is None:
            return Use(holder_silent=holder_silent)
        return Use(self._grant.fence, self._grant.holders)

    def validate(self) -> None:
        assert (self._following is not None) == (self.phase is Phase.COPYING)
        assert (self._again_at_s is not None) == (self.phase is Phase.PAUSING)
        waits = self.phase in (Phase.COPYING, Phase.PAUSING)
        assert (self.next_deadline_s() is not None) == waits, "who waits has a deadline"
        if self._grant is not None:
            assert self._grant.fence > 0
            used = self.phase is Phase.USED
            assert used or self._kind is Kind.ORIGIN, "what is granted is used at once"
            assert used or self.phase in (Phase.REACHING, Phase.COPYING)
