"""The tracker's decisions: events in, orders out, one deadline.

| event | from state | to state | orders |
| --- | --- | --- | --- |
| HostConnected | unknown or away | connected | Send Welcome, Send Revoked |
| HostConnected | connected | connected by the new link | Close the old link, as above |
| HostConnected, another host of that id | connected | connected | Close the new link |
| HostDisconnected, not leaving | connected | away: offers stay for the grace | |
| HostDisconnected, leaving | connected | unknown: offers vanish, leases end | |
| grace over | away | unknown | |
| silent for three heartbeats | connected | away | Close |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, assert_never

from p2pdist.model import control
from p2pdist.model.clones import CloneBook
from p2pdist.model.control import SwarmKey, ToTracker
from p2pdist.model.ids import HostId, parse_digest
from p2pdist.model.members import Member, Role
from p2pdist.model.statements import Keyring
from p2pdist.tracker.core.counters import TrackerCounters
from p2pdist.tracker.core.deadlines import Deadlines
from p2pdist.tracker.core.grants import Forward, ForwardEnd, Grants
from p2pdist.tracker.core.handouts import choose, owner_of
from p2pdist.tracker.core.jobs.book import JobBook
from p2pdist.tracker.core.leases import Leases
from p2pdist.tracker.core.orders import Close, Send, SendAll, SendMany
from p2pdist.tracker.core.revocations import Revocations
from p2pdist.tracker.core.selector import Candidate, parse_labels
from p2pdist.tracker.core.sums import Sums
from p2pdist.tracker.core.swarms import Host, Swarms
from p2pdist.tracker.core.traces import Traces

# Full: the host that has been away longest makes room; none away: the new one is refused.
HOSTS_MAX: Final = 65_536
# Twice the longest delay between two tries of a host, so that a lost connection costs no offer.
GRACE_S: Final = 10.0
HEARTBEATS_MISSED_MAX: Final = 3
# 20 to 100 µs each: a fifth to a half of one core. More hosts announce less often.
ANNOUNCES_PER_S_MAX: Final = 6000
# 10 µs each, with a job that watches the key 20 µs.
STEP_DELTAS: Final = 128


@dataclass(slots=True)
class HostConnected:
    """`link` is the shell's number for the connection, never used twice."""

    link: int
    member: Member
    at: str = ""
    """The address that it comes from."""
    instance: bytes = b""
    """The process at its end, see `clones`."""
    refused: str = ""
    """What to tell it of addresses that it announced and did not prove; `member` has the others."""

    @property
    def is_unnamed(self) -> bool:
        """It proved none."""
        return bool(self.refused) and not self.member.addresses


@dataclass(slots=True)
class HostDisconnected:
    link: int
    leaving: bool = False
    """The host said goodbye: it will not be back soon."""


@dataclass(slots=True)
class MessageReceived:
    link: int
    message: ToTracker


@dataclass(slots=True)
class RemotesChanged:
    """The trackers of these other datacenters can be asked now."""

    dcs: frozenset[str]


@dataclass(slots=True)
class RemoteAnswered:
    """The answer to a `Forward`; None: there was none in time."""

    forward: Forward
    answer: control.LeaseAnswer | None


Event = HostConnected | HostDisconnected | MessageReceived | RemotesChanged | RemoteAnswered


Order = Send | SendMany | SendAll | Close | Forward | ForwardEnd


@dataclass(frozen=True, slots=True)
class TrackerLimits:
    """What the operator may set; times in seconds."""

    announce_interval_s: float = 1.0
    heartbeat_s: float = 10.0
    grace_s: float = GRACE_S
    hosts_max: int = HOSTS_MAX


@dataclass(frozen=True, slots=True)
class HostRecord:
    """One host for the snapshot: who it is and what it holds."""

    member: Member
    deltas: list[control.Delta]


class TrackerCore:
    """Swarms, leases, revocations and jobs of all hosts. Pure: time enters as monotonic `now_s`.

    `dc` is the datacenter that this tracker speaks for among federated ones. `epoch_s` and
    `epoch_unix_s` are one moment on the monotonic and on the wall clock. `token(n)` returns n bytes
    that nobody can guess.
    """

    def __init__(
        self,
        *,
        epoch: str,
        dc: str,
        epoch_s: float,
        epoch_unix_s: float,
        keyring: Keyring,
        rng: Random,
        limits: TrackerLimits | None = None,
        token: Callable[[int], bytes],
        swarms: Swarms | None = None,
    ) -> None:
        self.limits = limits or TrackerLimits()
        self.counters = TrackerCounters()
        self.sums = Sums()
        self.swarms = Swarms() if swarms is None else swarms
        self.leases = Leases(self.counters, epoch_s=epoch_s, epoch_unix_s=epoch_unix_s)
        self.revocations = Revocations(keyring, self.counters)
        self.traces = Traces()
        self._epoch = epoch
        self._rng = rng
        self._hosts: dict[HostId, Host] = {}
        self.grants = Grants(
            self.leases, self.swarms, self.counters, self._hosts, self._owner, dc=dc
        )
        self.jobs = JobBook(
            self._hosts, rng=rng, token=token, unix_s=lambda now_s: epoch_unix_s + now_s - epoch_s
        )
        self._links: dict[int, Host] = {}
        self._clones = CloneBook()
        self._remote_links = 0
        """Those of other trackers."""
        self._proxies: dict[str, set[HostId]] = {}
        """Connected proxies by datacenter."""
        self._away: Deadlines[HostId] = Deadlines(self.limits.grace_s)
        self._silent: Deadlines[int] = Deadlines(HEARTBEATS_MISSED_MAX * self.limits.heartbeat_s)

    # --- what the shell reads -------------------------------------------------------------------

    @property
    def hosts_connected(self) -> int:
        """Peers and proxies; trackers of other datacenters do not count."""
        return len(self._links) - self._remote_links

    @property
    def hosts(self) -> Mapping[HostId, Host]:
        return self._hosts

    def host_ids(self) -> list[HostId]:
        return list(self._hosts)

    def export(self, host_id: HostId) -> HostRecord | None:
        """Return what the snapshot keeps of a host; None where it is gone, holds nothing, or is
        named to nobody."""
        host = self._hosts.get(host_id)
        if host is None or host.unnamed:
            return None
        deltas = [
            control.Delta(key, entry.held_chunks, entry.complete)
            for key, entry in host.entries.items()
            if entry.held_chunks or entry.complete
        ]
        return HostRecord(host.member, deltas) if deltas else None

    def restore(self, record: HostRecord, now_s: float) -> None:
        """Take in a host of the last snapshot: away, until it comes back or the grace is over.

        Raises ValueError for a record that makes no sense.
        """
        if record.member.host_id in self._hosts or len(self._hosts) >= self.limits.hosts_max:
            return
        host = self._hosts[record.member.host_id] = Host(record.member)
        self._away.touch(host.host_id, now_s)
        for delta in record.deltas:
            self.swarms.note(host, delta)

    # --- events ---------------------------------------------------------------------------------

    def handle(self, event: Event, now_s: float) -> list[Order]:
        """Apply one event; return the orders to carry out now, in order."""
        return [*self._handle(event, now_s), *self.jobs.drain()]

    def _handle(self, event: Event, now_s: float) -> list[Order]:
        match event:
            case HostConnected():
                return list(self._connect(event, now_s))
            case HostDisconnected(link, leaving):
                return self._disconnect(link, leaving, now_s)
            case MessageReceived(link, message):
                return self._receive(link, message, now_s)
            case RemotesChanged(dcs):
                self.grants.remotes = set(dcs)
                return []
            case RemoteAnswered(forward, answer):
                return self._remote_answered(forward, answer, now_s)
            case _:
                assert_never(event)

    def is_long(self, link: int, message: control.Announce) -> bool:
        """It is to be taken in by `steps`: at once it would hold up all others."""
        host = self._links.get(link)
        held = len(host.entries) if message.full and host is not None else 0
        return len(message.deltas) + held > STEP_DELTAS

    def steps(self, link: int, message: control.Announce) -> Iterator[control.Announce]:
        """Cut an announcement into short ones. What a full one does not name goes last, so that
        nothing vanishes that is still there."""
        yield from _short(message.deltas)
        host = self._links.get(link)
        if message.full and host is not None:
            named = {delta.key for delta in message.deltas}
            gone = [control.Delta(key, 0, False) for key in host.entries if key not in named]
            yield from _short(gone)

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` must run, if no event comes first."""
        ends = (
            self._away.next_s(),
            self._silent.next_s(),
            self.leases.next_deadline_s(),
            self.jobs.next_deadline_s(),
        )
        return min((end for end in ends if end is not None), default=None)

    def handle_deadline(self, now_s: float) -> list[Order]:
        orders: list[Order] = []
        for link in self._silent.pop_due(now_s):
            orders += self._disconnect(link, leaving=False, now_s=now_s)
            orders.append(Close(link, "no heartbeat"))
        for host_id in self._away.pop_due(now_s):
            self.counters.hosts_expired_total += 1
            self._forget(self._hosts[host_id], now_s)
        self.leases.handle_deadline(now_s)
        self.jobs.handle_deadline(now_s)
        return [*orders, *self.jobs.drain()]

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        connected = {host.host_id: host for host in self._links.values()}
        assert len(self._hosts) <= self.limits.hosts_max
        assert {link: host.link for link, host in self._links.items()} == {
            n: n for n in self._links
        }
        assert set(self._away) == self._hosts.keys() - connected.keys()
        assert set(self._silent) == self._links.keys()
        assert all(self._hosts[host_id] is host for host_id, host in connected.items())
        roles = [host.member.role for host in connected.values()]
        assert self._remote_links == roles.count(Role.TRACKER)
        proxies = {(h.dc, h.host_id) for h in connected.values() if h.member.role is Role.PROXY}
        assert proxies == {(dc, each) for dc, ids in self._proxies.items() for each in ids}
        assert all(self._proxies.values())
        assert self.leases.holders() <= self._hosts.keys()
        self.sums.validate(host.numbers for host in self._hosts.values())
        self.swarms.validate()
        self.leases.validate()
        self.grants.validate()
        self.jobs.validate()
        self.revocations.validate()
        self.traces.validate()
        self._away.validate()
        self._silent.validate()

    # --- hosts ----------------------------------------------------------------------------------

    def _connect(self, event: HostConnected, now_s: float) -> Iterator[Order]:
        link, member = event.link, event.member
        assert link not in self._links
        host = self._hosts.get(member.host_id)
        if host is not None and host.link is not None:
            if self._clones.both_alive(host.host_id, event.instance, host.instance):
                self.counters.host_ids_in_use_total += 1
                yield Close(link, f"this host id is in use at {host.at}", in_use=True)
                return
            self._clones.replaced(host.host_id, host.instance, event.instance)
            yield Close(host.link, f"replaced by a newer connection of this host, from {event.at}")
            yield from self._disconnect(host.link, leaving=False, now_s=now_s)
        if host is None and not self._make_room(now_s):
            self.counters.hosts_refused_total += 1
            yield Close(link, "the tracker has all the hosts it can hold")
            return
        self.counters.connections_total += 1
        self._admit(host, event, now_s)
        yield Send(link, self._welcome(event))
        for records in self.revocations.batches():
            yield Send(link, control.Revoked(records))

    def _welcome(self, event: HostConnected) -> control.Welcome:
        return control.Welcome(
            self._epoch,
            self._interval_s(),
            self.limits.heartbeat_s,
            event.refused[: control.LINE_MAX],
            event.is_unnamed,
        )

    def _admit(self, host: Host | None, event: HostConnected, now_s: float) -> None:
        link, member = event.link, event.member
        unnamed = event.is_unnamed
        self.counters.hosts_unnamed_total += unnamed
        new = (member.place, member.role, unnamed)
        if host is not None and (host.member.place, host.member.role, host.unnamed) != new:
            self._forget(host, now_s)  # the pools of its entries are those of its old place
            host = None
        if host is None:
            host = self._hosts[member.host_id] = Host(member, unnamed=unnamed)
        host.member, host.at, host.instance = member, event.at, event.instance
        # A reconnecting host joins again what it still wants.
        self.swarms.lose_interest(host)
        host.link = link
        self._links[link] = host
        self._remote_links += member.role is Role.TRACKER
        self._away.drop(host.host_id)
        self._silent.touch(link, now_s)
        if member.role is Role.PROXY:
            self._proxies.setdefault(host.dc, set()).add(host.host_id)

    def _disconnect(self, link: int, leaving: bool, now_s: float) -> list[Order]:
        host = self._links.pop(link, None)
        if host is None:
            return []
        self._remote_links -= host.member.role is Role.TRACKER
        self._silent.drop(link)
        host.link = None
        host.numbers = self.sums.replace(host.numbers, {})
        self.jobs.disconnected(host, now_s)
        if host.member.role is Role.PROXY:
            proxies = self._proxies[host.dc]
            proxies.discard(host.host_id)
            if not proxies:
                del self._proxies[host.dc]
        if leaving:
            self._forget(host, now_s)
        else:
            self._away.touch(host.host_id, now_s)
        return list(self.grants.lost(host.host_id))

    def _forget(self, host: Host, now_s: float) -> None:
        assert host.link is None
        self.swarms.forget(host)
        self.leases.release(host.host_id, now_s)
        self._away.drop(host.host_id)
        del self._hosts[host.host_id]

    def _make_room(self, now_s: float) -> bool:
        if len(self._hosts) < self.limits.hosts_max:
            return True
        longest_away = self._away.oldest()
        if longest_away is None:
            return False
        self._forget(self._hosts[longest_away], now_s)
        return True

    def _interval_s(self) -> float:
        return max(self.limits.announce_interval_s, len(self._hosts) / ANNOUNCES_PER_S_MAX)

    # --- messages -------------------------------------------------------------------------------

    def _receive(self, link: int, message: ToTracker, now_s: float) -> list[Order]:
        host = self._links.get(link)
        if host is None:
            return []  # was closed or replaced, its last frames were still under way
        self._silent.touch(link, now_s)
        try:
            return self._apply(host, link, message, now_s)
        except ValueError as error:
            self.counters.protocol_faults_total += 1
            ended = self._disconnect(link, leaving=False, now_s=now_s)
            return [*ended, Close(link, str(error))]

    def _apply(self, host: Host, link: int, message: ToTracker, now_s: float) -> list[Order]:
        if host.member.role is Role.TRACKER and isinstance(message, control.Join):
            raise ValueError("a tracker that wants to be in a swarm")
        match message:
            case control.Announce():
                self._announce(host, message, now_s)
            case control.Join():
                return [Send(link, self._join(host, message))]
            case control.Leave(key):
                self.swarms.set_interest(host, key, False)
            case control.LeaseAsk():
                answer = self.grants.ask(host, link, message, now_s)
                return [answer if isinstance(answer, Forward) else Send(link, answer)]
            case control.LeaseEnd(key, fence):
                end = self.grants.end(host, SwarmKey(key), fence, now_s)
                return [] if end is None else [end]
            case control.Revoke(records):
                fresh = self.revocations.add(records)
                return [SendAll(control.Revoked(fresh))] if fresh else []
            case control.Status(numbers):
                host.numbers = self.sums.replace(host.numbers, numbers)
            case control.Describe(name, labels, platform, runtimes, mirror):
                proxy = host.member.role is Role.PROXY
                host.about = Candidate(
                    host.host_id,
                    name,
                    parse_labels(labels),
                    host.dc,
                    platform,
                    tuple(runtimes),
                    proxy,
                    pulls=host.member.role is Role.PEER or (proxy and mirror),
                )
                self.jobs.described(host, now_s)
            case control.PrewarmReport():
                self.jobs.reported(host, message, now_s)
            case control.Proof():
                self.jobs.proof(host, message, now_s)
            case control.Trace(layer, units):
                self.traces.add(parse_digest(layer), units, now_s)
            case control.TraceAsk(seq, layer):
                told = self.traces.of(parse_digest(layer))
                return [Send(link, control.TraceAnswer(seq, told))]
            case control.Renew():
                raise ValueError("a certificate was asked for, which is not offered")
            case _:
                assert_never(message)
        return []

    def _announce(self, host: Host, message: control.Announce, now_s: float) -> None:
        self.counters.announces_total += 1
        self.counters.deltas_total += len(message.deltas)
        if message.full:
            named = {delta.key for delta in message.deltas}
            for key in [key for key in host.entries if key not in named]:
                self._note(host, control.Delta(key, 0, False), now_s)
        for delta in message.deltas:
            self._note(host, delta, now_s)

    def _note(self, host: Host, delta: control.Delta, now_s: float) -> None:
        entry = host.entries.get(SwarmKey(delta.key))
        before = (entry.held_chunks, entry.complete) if entry is not None else (0, False)
        if not self.swarms.note(host, delta):
            self.counters.keys_refused_total += 1
        elif before != (delta.held_chunks, delta.complete):
            self.jobs.changed(host, before, delta, now_s)

    def _join(self, host: Host, join: control.Join) -> control.Handout:
        key = control.parse_swarm_key(join.key)
        if join.member and not self.swarms.set_interest(host, key, True):
            self.counters.keys_refused_total += 1
        swarm = self.swarms.get(key)
        owner = self._owner(host.dc, key, join.exclude)
        named = choose(swarm, host, owner, join.exclude, self._rng)
        self.counters.handouts_total += 1
        self.counters.handout_members_total += len(named)
        self.counters.handouts_empty_total += not named
        members = [neighbour.member for neighbour in named]
        return control.Handout(join.seq, key, members, swarm.size if swarm else 0)

    def _remote_answered(
        self, forward: Forward, answer: control.LeaseAnswer | None, now_s: float
    ) -> list[Order]:
        host = self._links.get(forward.link)
        if host is None:  # gone meanwhile: what was granted for it is given back
            granted = answer is not None and answer.fence
            key = SwarmKey(forward.ask.key)
            return [ForwardEnd(forward.dc, key, granted)] if granted else []
        told = self.grants.answered(host, forward.ask, forward.dc, answer, now_s)
        return [Send(forward.link, told)]

    def _owner(self, dc: str, key: SwarmKey, exclude: list[str] | tuple[()] = ()) -> Host | None:
        owner = owner_of(key, self._proxies.get(dc, ()), exclude)
        return None if owner is None else self._hosts[owner]


def _short(deltas: list[control.Delta]) -> Iterator[control.Announce]:
    for start in range(0, len(deltas), STEP_DELTAS):
        yield control.Announce(deltas[start : start + STEP_DELTAS])
