"""What is to be in step, and how far each image is: the state behind the replication rules.

    queued ──submitted──▶ running ──everywhere──▶ done
      ▲  ▲                   │                      │
      │  └──job forgotten────┘                      │
      └──────────────── pushed again ───────────────┘

A replica is one image (by tag) under one rule. It is forgotten when its tag is gone and when
nothing took it for a day; one whose job an operator cancelled is left alone until its tag moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

import msgspec

from p2pdist.model.jobs import DcStatus, JobStatus

REPLICAS_MAX: Final = 10_000
# A push is one event per tag and architecture, within a second; they become one look-up.
DEBOUNCE_S: Final = 1.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
GIVE_UP_S: Final = 24 * 3600.0
FOLLOW_FIRST_S: Final = 1.0
FOLLOW_MAX_S: Final = 30.0
ANY_DC: Final = "*"
"""In metrics: the datacenters of a rule that names none, before a tracker told them."""

State = Literal["queued", "running", "done"]


class Replica(msgspec.Struct):
    """One image under one rule; all moments are Unix seconds."""

    rule: str
    image: str
    """`registry/repository:tag`"""
    pushed_s: float
    """When the oldest push was heard of that is not everywhere yet."""
    queued_s: float
    """When the last push was heard of: the day until it is given up begins here."""
    state: State = "queued"
    digest: str = ""
    """What the jobs bring; empty: never looked up."""
    jobs: dict[str, str] = {}
    """Tracker -> job id; empty id: it has no host for this."""
    outdated: list[tuple[str, str]] = []
    """Tracker and job of older digests, to be cancelled."""
    dcs: list[str] = []
    """The datacenters that the trackers told of."""
    behind: list[str] = []
    """Those of them, and of the rule, that do not have all of it."""
    cancelled: str = ""
    """The digest whose job was cancelled by somebody else."""
    due_s: float = 0.0
    tries: int = 0
    generation: int = 0
    """Counts pushes: an answer to an older one does not settle a newer one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One rule in one datacenter, for the metrics."""

    rule: str
    dc: str
    behind: int
    lag_s: float


class Replicas:
    """All replicas by rule and image. Pure: `now_s` is Unix seconds."""

    def __init__(self, rules: Iterable[tuple[str, Sequence[str]]], rng: Random) -> None:
        """`rules`: names, and the datacenters that each names (none: all)."""
        self._dcs = {name: tuple(dcs) for name, dcs in rules}
        self._rng = rng
        self._all: dict[tuple[str, str], Replica] = {}
        self._busy: set[tuple[str, str]] = set()
        self.pushed_out: list[Replica] = []
        """Forgotten to make room; the caller deletes them from the disk and empties this."""

    def __len__(self) -> int:
        return len(self._all)

    def get(self, rule: str, image: str) -> Replica | None:
        return self._all.get((rule, image))

    def restore(self, replicas: Iterable[Replica]) -> list[Replica]:
        """Take in what was stored; return what belongs to no rule any more."""
        foreign = []
        for replica in replicas:
            if replica.rule in self._dcs:
                # Whatever kept it from going on may be over: one try at least, however old.
                replica.due_s, replica.tries = 0.0, 0
                self._all[replica.rule, replica.image] = replica
            else:
                foreign.append(replica)
        return foreign

    def heard(self, rule: str, image: str, now_s: float) -> Replica | None:
        """Take in that `image` may have moved; None: there is no room for more."""
        replica = self._all.get((rule, image))
        if replica is None:
            if len(self._all) >= REPLICAS_MAX and not self._forget_one_in_step():
                return None
            replica = Replica(rule, image, now_s, now_s, behind=list(self._dcs[rule]))
            self._all[rule, image] = replica
        elif replica.state == "done":
            replica.pushed_s = now_s
            replica.behind = list(self._dcs[rule] or replica.dcs)
            replica.jobs = {}  # over; its key tells whether it still holds
        replica.state, replica.queued_s, replica.tries = "queued", now_s, 0
        replica.cancelled = ""
        replica.due_s = now_s + DEBOUNCE_S
        replica.generation += 1
        return replica

    # --- work -----------------------------------------------------------------------------------

    def take_due(self, now_s: float, count: int) -> list[Replica]:
        """Up to `count` replicas to go on with; each must come back by `settle` or `forget`."""
        waiting = [r for key, r in self._all.items() if r.state != "done" and key not in self._busy]
        # A clock that was set back must not put anything off for longer than the longest pause.
        ready = [r for r in waiting if r.due_s <= now_s or r.due_s > now_s + 2 * RETRY_MAX_S]
        ready.sort(key=lambda r: r.due_s)
        taken = ready[:count]
        self._busy.update((r.rule, r.image) for r in taken)
        return taken

    def next_due_s(self) -> float | None:
        return min(
            (r.due_s for k, r in self._all.items() if r.state != "done" and k not in self._busy),
            default=None,
        )

    def resolved(self, replica: Replica, digest: str) -> bool:
        """Note what the tag stands for now; False: that was cancelled (then `stop`)."""
        if digest == replica.cancelled:
            return False
        if digest != replica.digest:
            replica.outdated += [(url, job) for url, job in replica.jobs.items() if job]
            replica.digest, replica.jobs = digest, {}
            replica.behind = list(self._dcs[replica.rule] or replica.dcs)
        return True

    def settle(
        self,
        replica: Replica,
        generation: int,
        reports: Sequence[JobStatus],
        *,
        submitted: bool,
        complete: bool,
        now_s: float,
    ) -> None:
        """Take in a round of work that began at `generation`.

        `submitted`: every tracker has the job; `complete`: each of them reported.
        """
        self._busy.discard((replica.rule, replica.image))
        self._note_reports(replica, reports, complete=complete)
        if generation != replica.generation:
            return  # pushed meanwhile: queued again, whatever this round brought
        over = complete and all(r.state == "done" for r in reports)
        if not submitted or (over and replica.behind):  # a datacenter that no tracker knows yet
            if replica.state == "running":
                replica.queued_s = now_s
            replica.state = "queued"
            self._back_off(replica, now_s)
        elif over:
            replica.state, replica.tries, replica.outdated = "done", 0, []
        elif any(r.state in ("partly", "held") for r in reports):
            replica.state = "running"
            self._back_off(replica, now_s)
        else:
            replica.state = "running"
            age_s = max(0.0, now_s - replica.queued_s)
            replica.due_s = now_s + min(FOLLOW_MAX_S, max(FOLLOW_FIRST_S, age_s / 10))

    def job_lost(self, replica: Replica, tracker: str) -> None:
        """A tracker does not know the job any more: it gets it again."""
        replica.jobs.pop(tracker, None)

    def job_cancelled(self, replica: Replica, generation: int) -> None:
        """Somebody ended the job: another proxy for a newer digest, or an operator for good."""
        replica.jobs = {}
        if generation == replica.generation:
            replica.cancelled = replica.digest

    def stop(self, replica: Replica, generation: int) -> None:
        """Leave a cancelled digest alone until the tag moves or is pushed again."""
        self._busy.discard((replica.rule, replica.image))
        if generation == replica.generation:
            replica.state, replica.behind, replica.outdated = "done", [], []

    def forget(self, replica: Replica, generation: int) -> bool:
        """Drop a replica, unless it was pushed meanwhile."""
        key = (replica.rule, replica.image)
        self._busy.discard(key)
        if generation != replica.generation:
            return False
        self._all.pop(key, None)
        return True

    @staticmethod
    def overdue(replica: Replica, now_s: float) -> bool:
        return replica.tries > 0 and now_s - replica.queued_s > GIVE_UP_S

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert len(self._all) <= REPLICAS_MAX
        assert self._busy <= self._all.keys()
        for (rule, image), replica in self._all.items():
            assert (replica.rule, replica.image) == (rule, image)
            assert rule in self._dcs
            assert replica.digest or not (replica.jobs or replica.outdated)
            assert set(replica.behind) <= {*replica.dcs, *self._dcs[rule]}
            if replica.state == "done":
                assert not replica.behind
                assert not replica.outdated
        assert not any(replica in self._all.values() for replica in self.pushed_out)

    # --- figures --------------------------------------------------------------------------------

    def queue_length(self) -> int:
        return sum(r.state == "queued" for r in self._all.values())

    def standings(self, now_s: float) -> Iterator[Standing]:
        """Every rule in every datacenter that it names or that is known; 0 when in step."""
        counts: dict[tuple[str, str], int] = {}
        lags: dict[tuple[str, str], float] = {}
        for rule, dcs in self._known_dcs().items():
            for dc in sorted(dcs):
                counts[rule, dc], lags[rule, dc] = 0, 0.0
        for replica in self._all.values():
            if replica.state == "done":
                continue
            for dc in replica.behind or ((ANY_DC,) if not replica.dcs else ()):
                key = (replica.rule, dc)
                counts[key] = counts.get(key, 0) + 1
                lags[key] = max(lags.get(key, 0.0), now_s - replica.pushed_s)
        for (rule, dc), behind in counts.items():
            yield Standing(rule, dc, behind, lags[rule, dc])

    def _known_dcs(self) -> dict[str, set[str]]:
        known = {rule: set(dcs) for rule, dcs in self._dcs.items()}
        for replica in self._all.values():
            known[replica.rule].update(replica.dcs)
        return known

    # --- within ---------------------------------------------------------------------------------

    def _note_reports(
        self, replica: Replica, reports: Sequence[JobStatus], *, complete: bool
    ) -> None:
        if not reports:
            return
        states = {d.dc: r.state == "done" or _in_step(d) for r in reports for d in r.dcs}
        unheard = () if complete else (dc for dc in replica.behind if dc not in states)
        named = self._dcs[replica.rule]
        absent = (dc for dc in named if dc not in states and dc not in replica.dcs)
        late = {dc for dc, in_step in states.items() if not in_step}
        replica.dcs = sorted({*states, *(() if complete else replica.dcs)})
        replica.behind = sorted({*late, *unheard, *absent})

    def _back_off(self, replica: Replica, now_s: float) -> None:
        pause_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(replica.tries, 32))
        replica.due_s = now_s + pause_s * (0.5 + self._rng.random() / 2)
        replica.tries += 1

    def _forget_one_in_step(self) -> bool:
        for key, replica in self._all.items():
            if replica.state == "done" and key not in self._busy:
                self.pushed_out.append(self._all.pop(key))
                return True
        return False


def _in_step(dc: DcStatus) -> bool:
    return dc.ready >= dc.hosts and dc.proxies_ready >= dc.proxies and dc.hosts + dc.proxies > 0
