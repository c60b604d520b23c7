"""Leases: the exclusive, expiring, fenced right to fetch a key from outside of a datacenter.

A fence is the Unix second in which it was granted, or one more than the key's last fence where
that is later. So fences of a key grow over the life of a tracker and, since clocks go on, over its
restarts, without a table that must survive. A tracker that restarts knows no lease any more: for
at most one lease time two hosts may then fetch the same key, and the higher fence is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.control import SwarmKey
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member
from p2pdist.tracker.core.counters import TrackerCounters
from p2pdist.tracker.core.deadlines import Deadlines

# Renewed at a third of it, a lease outlives two lost messages, and a dead holder delays the
# others by 10 s at most (a lost connection frees it sooner).
LEASE_S: Final = 10.0
# Full: asks are refused without a holder; 0.2 KB each.
LEASES_MAX: Final = 65_536
# Who had a lease is worth knowing for as long as a release takes to reach all datacenters.
PAST_S: Final = 900.0

LeaseKey = tuple[str, SwarmKey]
"""Datacenter and key."""


@dataclass(slots=True)
class Lease:
    holder: HostId
    fence: int
    expires_at_s: float
    member: Member
    """Whom to name to those who ask: the holder, or the proxy that a tracker asked for."""
    lost: bool = False
    """It ran out, or its host vanished, before the holder gave it back."""


class Leases:
    """All leases of all datacenters.

    `epoch_unix_s` is the wall clock at `epoch_s` of the monotonic clock that `now_s` is read from.
    """

    def __init__(
        self,
        counters: TrackerCounters,
        *,
        epoch_s: float,
        epoch_unix_s: float,
        lease_s: float = LEASE_S,
        leases_max: int = LEASES_MAX,
    ) -> None:
        self._counters = counters
        self._unix_offset_s = epoch_unix_s - epoch_s
        # The tracker before us, if it lived for a second, granted nothing above its clock.
        self._fence_min = int(epoch_unix_s) + 1
        self._lease_s = lease_s
        self._leases_max = leases_max
        self._live: dict[LeaseKey, Lease] = {}
        self._past: dict[LeaseKey, Lease] = {}
        self._before: dict[LeaseKey, Member] = {}
        """Of leases in force: who had it before, and may still have the bytes."""
        self._expiry: Deadlines[LeaseKey] = Deadlines(lease_s)
        self._forgetting: Deadlines[LeaseKey] = Deadlines(max(lease_s, PAST_S))
        self._keys_of: dict[HostId, set[LeaseKey]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def next_deadline_s(self) -> float | None:
        ends = (self._expiry.next_s(), self._forgetting.next_s())
        return min((end for end in ends if end is not None), default=None)

    def ask(
        self, dc: str, key: SwarmKey, host: HostId, now_s: float, *, member: Member
    ) -> Lease | None:
        """Grant or renew, or return the lease of another host; None when the table is full."""
        self.handle_deadline(now_s)
        at = (dc, key)
        lease = self._live.get(at)
        if lease is not None:
            return self._renew(at, lease, host, now_s)
        if len(self._live) >= self._leases_max:
            self._counters.leases_refused_total += 1
            return None
        return self._grant(at, host, member, now_s)

    def holder(self, dc: str, key: SwarmKey) -> HostId | None:
        lease = self._live.get((dc, key))
        return None if lease is None else lease.holder

    def last(self, dc: str, key: SwarmKey) -> Member | None:
        """Who gave the last lease back of its own accord, before the one in force."""
        return self._before.get((dc, key))

    def take_away(self, dc: str, key: SwarmKey, now_s: float) -> None:
        """The holder cannot be reached: the next one who asks need not wait."""
        self._retire((dc, key), lost=True, now_s=now_s)

    def end(self, dc: str, key: SwarmKey, host: HostId, fence: int, now_s: float) -> None:
        """The holder gives its lease back; anything but its current lease is ignored."""
        lease = self._live.get((dc, key))
        if lease is not None and (lease.holder, lease.fence) == (host, fence):
            self._retire((dc, key), lost=False, now_s=now_s)

    def release(self, host: HostId, now_s: float) -> None:
        """`host` is gone: others need not wait for its leases to run out."""
        for at in list(self._keys_of.get(host, ())):
            self._retire(at, lost=True, now_s=now_s)

    def handle_deadline(self, now_s: float) -> None:
        for at in self._expiry.pop_due(now_s):
            self._retire(at, lost=True, now_s=now_s)
        for at in self._forgetting.pop_due(now_s):
            # A fence ahead of the clock is kept until the clock has passed it.
            if self._past[at].fence >= self._fence(now_s):
                self._forgetting.touch(at, now_s)
            else:
                del self._past[at]

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert len(self._live) <= self._leases_max
        assert len(self._past) <= self._leases_max
        assert not self._live.keys() & self._past.keys()
        self._expiry.validate()
        self._forgetting.validate()
        assert set(self._expiry) == self._live.keys()
        assert set(self._forgetting) == self._past.keys()
        assert self._before.keys() <= self._live.keys()
        held = [(host, at) for host, keys in self._keys_of.items() for at in keys]
        assert set(held) == {(lease.holder, at) for at, lease in self._live.items()}
        assert all(self._keys_of.values())

    def holders(self) -> set[HostId]:
        """Of the leases in force."""
        return set(self._keys_of)

    def _renew(self, at: LeaseKey, lease: Lease, host: HostId, now_s: float) -> Lease:
        if lease.holder != host:
            self._counters.leases_refused_total += 1
            return lease
        self._counters.leases_renewed_total += 1
        lease.expires_at_s = now_s + self._lease_s
        self._expiry.touch(at, now_s)
        return lease

    def _grant(self, at: LeaseKey, host: HostId, member: Member, now_s: float) -> Lease:
        past = self._past.pop(at, None)
        self._forgetting.drop(at)
        fence = self._fence(now_s)
        if past is not None:
            fence = max(fence, past.fence + 1)
            self._counters.leases_taken_over_total += past.lost and past.holder != host
            if not past.lost and past.member.host_id != member.host_id:
                self._before[at] = past.member
        self._counters.leases_granted_total += 1
        lease = self._live[at] = Lease(host, fence, now_s + self._lease_s, member)
        self._expiry.touch(at, now_s)
        self._keys_of.setdefault(host, set()).add(at)
        return lease

    def _fence(self, now_s: float) -> int:
        return max(self._fence_min, int(now_s + self._unix_offset_s))

    def _retire(self, at: LeaseKey, *, lost: bool, now_s: float) -> None:
        lease = self._live.pop(at)
        self._before.pop(at, None)
        lease.lost = lost
        self._expiry.drop(at)
        keys = self._keys_of[lease.holder]
        keys.discard(at)
        if not keys:
            del self._keys_of[lease.holder]
        self._remember(at, lease, now_s)

    def _remember(self, at: LeaseKey, lease: Lease, now_s: float) -> None:
        """Keep the fence of a past lease; full: the oldest goes, long passed by the clock."""
        self._past[at] = lease
        self._forgetting.touch(at, now_s)
        if len(self._past) > self._leases_max and (oldest := self._forgetting.oldest()):
            self._forgetting.drop(oldest)
            del self._past[oldest]
