"""Who may fetch a blob from where: the leases of one datacenter, and those of all of them.

A digest's lease is the right to fetch it from outside of a datacenter, whatever the source; its
tracker grants it. The `origin:` lease of a digest is the right to read it from the registry: one
tracker of all that are federated grants it, the first by rendezvous hash that can be reached.
Parted from the others, each side grants its own: a partition costs a second read, never a pull.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from p2pdist.model import control
from p2pdist.model.control import LeaseAnswer, LeaseAsk, SwarmKey
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member, Role
from p2pdist.model.rendezvous import ranked
from p2pdist.tracker.core.counters import TrackerCounters
from p2pdist.tracker.core.leases import LEASE_S, Leases
from p2pdist.tracker.core.swarms import Host, Swarms, Tier

# The table of leases has one column for each datacenter, and this one for the registries.
EVERYWHERE = ""
# What is asked of other trackers at one time; full: this tracker decides by itself.
FORWARDED_MAX = 65_536


@dataclass(slots=True)
class Forward:
    """Order: ask the tracker of `dc` for `ask.key`, on behalf of `member`."""

    dc: str
    link: int
    ask: LeaseAsk
    member: Member


@dataclass(slots=True)
class ForwardEnd:
    """Order: give back to the tracker of `dc` what it granted."""

    dc: str
    key: SwarmKey
    fence: int


@dataclass(slots=True)
class _Forwarded:
    dc: str
    member: Member
    fence: int


class Grants:
    """Answers `LeaseAsk`; `remotes` are the datacenters whose trackers are connected now."""

    def __init__(
        self,
        leases: Leases,
        swarms: Swarms,
        counters: TrackerCounters,
        hosts: Mapping[HostId, Host],
        owner: Callable[[str, SwarmKey], Host | None],
        *,
        dc: str,
    ) -> None:
        self.remotes: set[str] = set()
        self._leases = leases
        self._swarms = swarms
        self._counters = counters
        self._hosts = hosts
        self._owner = owner
        self._dc = dc
        self._forwarded: dict[SwarmKey, _Forwarded] = {}

    def ask(self, host: Host, link: int, ask: LeaseAsk, now_s: float) -> LeaseAnswer | Forward:
        """Answer, or say which tracker has to; raise ValueError for an ask that makes no sense."""
        key = control.parse_lease_key(ask.key)
        if not key.startswith(control.ORIGIN):
            return self._ask_outside(host, ask, key, now_s)
        if host.member.role is Role.TRACKER:
            if ask.on_behalf is None:
                raise ValueError("a tracker that asks for nobody")
            return self._ask_origin(host, ask, key, ask.on_behalf, now_s)
        if host.member.role is not Role.PROXY:
            raise ValueError("only proxies read registries for others")
        return self._route(host, link, ask, key, now_s)

    def answered(
        self, host: Host, ask: LeaseAsk, dc: str, answer: LeaseAnswer | None, now_s: float
    ) -> LeaseAnswer:
        """The word of another tracker; None: it did not answer, and we decide by ourselves."""
        key = SwarmKey(ask.key)
        if answer is None:
            return self._ask_origin(host, ask, key, host.member, now_s)
        if answer.fence:
            self._forwarded[key] = _Forwarded(dc, host.member, answer.fence)
        return LeaseAnswer(ask.seq, key, answer.fence, answer.expires_in_s, answer.holder)

    def end(self, host: Host, key: SwarmKey, fence: int, now_s: float) -> ForwardEnd | None:
        """The holder gives its lease back."""
        if not key.startswith(control.ORIGIN):
            self._leases.end(host.dc, key, host.host_id, fence, now_s)
            return None
        forwarded = self._forwarded.get(key)
        if forwarded is not None and forwarded.member.host_id == host.host_id:
            del self._forwarded[key]
            return ForwardEnd(forwarded.dc, key, forwarded.fence)
        self._leases.end(EVERYWHERE, key, host.host_id, fence, now_s)
        return None

    def lost(self, host: HostId) -> list[ForwardEnd]:
        """A host is gone: what was asked for it elsewhere is given back."""
        gone = [(k, f) for k, f in self._forwarded.items() if f.member.host_id == host]
        for key, _ in gone:
            del self._forwarded[key]
        return [ForwardEnd(forwarded.dc, key, forwarded.fence) for key, forwarded in gone]

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert len(self._forwarded) <= FORWARDED_MAX
        for forwarded in self._forwarded.values():
            assert forwarded.fence > 0
            assert self._hosts[forwarded.member.host_id].link is not None, (
                "whoever is gone has none"
            )

    # --- one datacenter -------------------------------------------------------------------------

    def _ask_outside(self, host: Host, ask: LeaseAsk, key: SwarmKey, now_s: float) -> LeaseAnswer:
        """While a proxy of the datacenter lives, peers get no lease: it fetches for all."""
        if host.member.role is not Role.PROXY and (owner := self._owner(host.dc, key)):
            self._counters.leases_refused_total += 1
            return LeaseAnswer(ask.seq, key, 0, 0.0, owner.member)
        answer = self._grant(host.dc, host, ask, key, host.member, now_s)
        if not answer.fence:
            return answer
        holders = self._holders(host, key)
        return LeaseAnswer(ask.seq, key, answer.fence, answer.expires_in_s, None, holders)

    def _holders(self, host: Host, key: SwarmKey) -> int:
        swarm = self._swarms.get(key)
        pool = swarm.pool((host.dc,)) if swarm is not None else None
        if pool is None:
            return 0
        count = len(pool.tiers[Tier.COMPLETE]) + len(pool.tiers[Tier.PARTIAL])
        mine = host.entries.get(key)
        return count - (mine is not None and mine.tier is not Tier.EMPTY)

    # --- all datacenters ------------------------------------------------------------------------

    def _route(
        self, host: Host, link: int, ask: LeaseAsk, key: SwarmKey, now_s: float
    ) -> LeaseAnswer | Forward:
        forwarded = self._forwarded.get(key)
        if forwarded is not None:
            mine = forwarded.member.host_id == host.host_id
            fence = forwarded.fence if mine else 0
            return LeaseAnswer(ask.seq, key, fence, LEASE_S, None if mine else forwarded.member)
        arbiter = ranked(key, {self._dc, *self.remotes})[0]
        if arbiter == self._dc or len(self._forwarded) >= FORWARDED_MAX:
            return self._ask_origin(host, ask, key, host.member, now_s)
        return Forward(arbiter, link, ask, host.member)

    def _ask_origin(
        self, host: Host, ask: LeaseAsk, key: SwarmKey, member: Member, now_s: float
    ) -> LeaseAnswer:
        return self._grant(EVERYWHERE, host, ask, key, member, now_s)

    def _grant(
        self, dc: str, host: Host, ask: LeaseAsk, key: SwarmKey, member: Member, now_s: float
    ) -> LeaseAnswer:
        holder = self._leases.holder(dc, key)
        if holder not in (None, host.host_id) and self._hosts[holder].link is None:
            # Its connection is gone, most likely with it; should it live, two fetch for a while.
            self._leases.take_away(dc, key, now_s)
        lease = self._leases.ask(dc, key, host.host_id, now_s, member=member)
        if lease is None:
            return LeaseAnswer(ask.seq, key, 0, 0.0)
        expires_in_s = max(0.0, lease.expires_at_s - now_s)
        if lease.holder != host.host_id:
            return LeaseAnswer(ask.seq, key, 0, expires_in_s, lease.member)
        last = self._leases.last(dc, key) if dc == EVERYWHERE else None
        return LeaseAnswer(ask.seq, key, lease.fence, expires_in_s, last)
