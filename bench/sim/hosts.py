"""A simulated host: the cores of a daemon, and a shell that knows neither sockets nor files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address
from random import Random
from typing import Final, assert_never

from bench.sim.clock import Clock, Timer
from bench.sim.content import Content
from bench.sim.lines import TrackerLine
from bench.sim.wire import Card, End, Parcel, Run
from p2pdist.control.core import events
from p2pdist.exchange import frames as fr
from p2pdist.exchange.codec import Decoder, encode
from p2pdist.model.control import Delta, Handout, digest_key
from p2pdist.model.ids import Digest, HostId, RequestId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.statements import HashBatch, MapHead, Seal
from p2pdist.swarm.core import host_orders as orders
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.traced import Trace, TracedHost

CHUNK_S_PER_BYTE: Final = 0.72e-9
"""Receive, hash and write: 0.72 CPU-s/GB of a daemon."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a host needs beside the network, in seconds; measured on the daemons."""

    chunk_s_per_byte: float = CHUNK_S_PER_BYTE
    disk_s: float = 0.0005
    """One thread hop that writes a record or makes a blob."""


@dataclass(slots=True)
class SimLink:
    """One end of a link: what the core knows of it, the way out, and what comes in."""

    state: LinkState
    out: End
    decoder: Decoder


class SimHost:
    """One daemon. `received` and `wasted` are payload bytes."""

    def __init__(
        self,
        clock: Clock,
        content: Content,
        host_id: HostId,
        *,
        role: Role,
        place: Place,
        card: Card,
        rng: Random,
        costs: Costs,
        connect: Callable[[SimHost, HostId], None],
        cut: Callable[[SimHost, HostId], None],
        owner: Callable[[Digest], HostId | None],
        is_proxy_id: Callable[[HostId], bool],
        write: Callable[[bytes], object] | None = None,
    ) -> None:
        """`connect` makes a link to a host, if that can be had; both then hear `link_up`. `cut`
        ends one. `owner`: the proxy of its datacenter that is to be asked for a blob. `write`
        takes the lines of its trace."""
        self._clock = clock
        address = Address(str(IPv6Address(int(host_id, 16))), 1)
        self.member = Member(host_id, role, place, (address,))
        self.card = card
        self.links: dict[HostId, SimLink] = {}
        self.alive = True
        self.received_bytes = 0
        self.wasted_bytes = 0
        self.checks = False
        """Every event is followed by the cores' `validate`."""
        self.lies = False
        """What it sends is wrong."""
        self.on_deliver: Callable[[Digest], None] = lambda _: None
        """Some of a blob came, or its end."""
        self.on_wanted: Callable[[Digest], None] = lambda _: None
        """Somebody asks for a blob that is not whole here."""
        make = HostCore if write is None else partial(TracedHost, trace=self._trace(write))
        self.core = make(
            place,
            is_proxy=role is Role.PROXY,
            rng=rng,
            proxy_of_ours=is_proxy_id,
            revoked=lambda _: False,
            servable=lambda _: True,
        )
        self.line = TrackerLine(
            clock,
            self.member,
            rng,
            inventory=self._inventory,
            take_handout=self._take_handout,
            moved=self._tracker_moved,
        )
        self.held: dict[Digest, int] = {}
        """What lies on its disk."""
        self.costs = costs
        self._content = content
        self._connect = connect
        self._cut = cut
        self._owner = owner
        self._meeting: dict[HostId, dict[Digest, None]] = {}
        """What to ask for where a link is being made."""
        self._reaching: dict[HostId, list[Callable[[bool], None]]] = {}
        """Who waits for a link."""
        self._cpu_free_s = 0.0
        self._acting = False
        self._busy = False
        self._timer: Timer | None = None

    def _trace(self, write: Callable[[bytes], object]) -> Trace:
        trace, member = Trace(write), self.member
        now_s = self._clock.now_s
        trace.begin(member.host_id, now_s, role=member.role.value, dc=member.place.dc)
        return trace

    @property
    def host_id(self) -> HostId:
        return self.member.host_id

    @property
    def wrong_accepted(self) -> int:
        """Chunks that its cores believe to be there, though what came was wrong."""
        blobs = self.core.blobs.items()
        return sum((b.held & ~self.held.get(d, 0)).bit_count() for d, b in blobs)

    # --- what is done with it -------------------------------------------------------------------

    def hold_whole(self, digest: Digest) -> BlobCore:
        """It has the blob from before."""
        blob = self._content.blobs[digest]
        self.held[digest] = (1 << blob.geometry.chunk_count) - 1
        core = self.core.take_up(digest, blob.geometry.size_bytes, self._clock.now_s)
        core.map_followed(self._content.whole_map(blob), self.held[digest], self._clock.now_s)
        self.core.hear_wishes(core, self._clock.now_s)
        self.happened()
        return core

    def activate(self, digest: Digest) -> BlobCore:
        """The blob in motion; one that failed begins anew with what lies here of it, as
        `swarm/node.py` has it."""
        now_s, before = self._clock.now_s, self.core.blobs.get(digest)
        if before is not None and before.failure is None:
            return before
        if before is not None:
            self.core.remember_wishes(before)
            self.core.let_go(before, now_s)
        blob = self.core.take_up(digest, self._content.blobs[digest].geometry.size_bytes, now_s)
        if before is not None and before.map is not None:
            blob.map_followed(before.map, self.held.get(digest, 0), now_s)
        self.core.hear_wishes(blob, now_s)
        self.happened()
        return blob

    def pull(self, digest: Digest) -> BlobCore:
        """Take part in the swarm of a blob; the owning proxy is asked, whoever else is named."""
        blob = self.activate(digest)
        blob.join(self._clock.now_s)
        blob.ask_proxies()
        if (owner := self._owner(digest)) is not None:
            self._meet(digest, owner)
        self.happened()
        return blob

    def look_at(self, digest: Digest, proxy: HostId) -> None:
        """Ask a proxy for a blob, also where it was asked before."""
        self.core.blobs[digest].join(self._clock.now_s)
        self._meet(digest, proxy)
        self.happened()

    def stop(self, *, leaving: bool) -> None:
        """It is killed, or leaves with a word to the tracker."""
        self.alive = False
        for link in list(self.links.values()):
            link.out.close()
        self.line.stop(leaving=leaving)

    # --- links ----------------------------------------------------------------------------------

    def link_up(self, other: Member, out: End, back: End) -> None:
        """A link to `other`; `back` is its other direction."""
        state = LinkState(
            other, lambda: back.received_bytes, speaks_demand=True, speaks_who_else=True
        )
        self.links[other.host_id] = SimLink(state, out, Decoder())
        self.core.link_up(state)
        self.linked(other.host_id)

    def linked(self, other: HostId) -> None:
        """What waited for a link to `other` is asked now."""
        for digest in self._meeting.pop(other, {}):
            self._meet(digest, other)
        self._reached(other)
        self.happened()

    def not_linked(self, other: HostId) -> None:
        """No link to `other` is to be had."""
        self._meeting.pop(other, None)
        self._reached(other)

    def link_down(self, other: HostId) -> None:
        """The host at the other end is gone."""
        link = self.links.pop(other, None)
        if link is not None and self.alive:
            link.out.close()
            self.core.link_down(link.state, self._clock.now_s, gone=True)
            self.happened()

    def take_frames(self, sender: HostId, data: bytes) -> None:
        link = self.links.get(sender)
        if not self.alive or link is None:
            return
        for frame in link.decoder.feed(data):
            self._hear(link, frame)
        self.happened()

    def take_chunk(self, sender: HostId, parcel: Parcel) -> None:
        link = self.links.get(sender)
        if not self.alive or link is None:
            return
        digest = self.core.requests.chunk_came(link.state, RequestId(parcel.request_id))
        if digest is None:
            self.wasted_bytes += parcel.nbytes
            return
        self.compute(parcel.nbytes, partial(self._checked, link, digest, parcel))

    def compute(self, nbytes: int, then: Callable[[], None]) -> None:
        """Hash and write bytes, one after the other."""
        cost_s = nbytes * self.costs.chunk_s_per_byte
        self._cpu_free_s = max(self._clock.now_s, self._cpu_free_s) + cost_s
        self._clock.at(self._cpu_free_s, then)

    def _checked(self, link: SimLink, digest: Digest, parcel: Parcel) -> None:
        blob = self.core.blobs.get(digest)
        if not self.alive or blob is None:
            return
        bit = 1 << parcel.chunk
        if parcel.good and not self.held.get(digest, 0) & bit:
            self.held[digest] = self.held.get(digest, 0) | bit
            self.received_bytes += parcel.nbytes
        else:
            self.wasted_bytes += parcel.nbytes
        now_s, request_id = self._clock.now_s, RequestId(parcel.request_id)
        blob.arrived(link.state, request_id, parcel.chunk, now_s, good=parcel.good)
        self.happened()

    def _hear(self, link: SimLink, frame: fr.Frame) -> None:
        now_s = self._clock.now_s
        match frame:
            case fr.MapRecord(record):
                statement = self._content.open(record)
                if isinstance(statement, MapHead | HashBatch | Seal):
                    self.core.hear_statement(link.state, statement, record, now_s)
            case fr.Request():
                self._serve(link, frame)
            case fr.Cancel(request_id):
                link.out.cancel(request_id)
            case (
                fr.Interest()
                | fr.Uninterest()
                | fr.Offer()
                | fr.Retract()
                | fr.Working()
                | fr.Refuse()
                | fr.WhoElse()
                | fr.Others()
            ):
                self.core.hear(link.state, frame, now_s)
            case _:
                raise AssertionError(f"nobody says {frame} here")

    def _serve(self, link: SimLink, request: fr.Request) -> None:
        now_s, blob = self._clock.now_s, self.core.blobs.get(request.digest)
        bits = ((1 << request.count) - 1) << request.first
        if blob is None or bits & ~blob.held:
            self._refuse(link, request, fr.RefuseReason.UNKNOWN)
            return
        if blob.refers(link.state, bits, now_s):
            self._refuse(link, request, fr.RefuseReason.BUSY)
            return
        blob.neighbours.asked(link.state, bits, now_s)
        good, length = not self.lies, blob.geometry.length
        parcels = deque(
            Parcel(request.request_id, i, length(i), good)
            for i in range(request.first, request.first + request.count)
        )
        done = partial(self._sent, blob, link, bits)
        link.out.add(Run(request.request_id, parcels, done, bulk=request.bulk))

    def _sent(self, blob: BlobCore, link: SimLink, asked: int, sent: int) -> None:
        if self.alive and self.core.blobs.get(blob.digest) is blob:
            blob.neighbours.sent(link.state, sent, asked & ~sent, self._clock.now_s)
            self.happened()

    def _refuse(self, link: SimLink, request: fr.Request, reason: fr.RefuseReason) -> None:
        link.out.send_frames(encode(fr.Refuse(request.request_id, reason)))

    # --- driving the core -----------------------------------------------------------------------

    def happened(self) -> None:
        """The core heard of something: carry out what it orders."""
        if self._busy:
            return
        self._busy = True
        while self.core.orders:
            self._do(self.core.orders.popleft())
        self._busy = False
        if self.checks:
            self.core.validate()
            self.line.core.validate()
        if self.core.woken and not self._acting:
            self._acting = True
            self._clock.at(self._clock.now_s, self._act)

    def _act(self) -> None:
        self._acting = False
        if self.alive:
            self.core.act(self._clock.now_s)
            self.happened()
            self._set_deadline()

    def _set_deadline(self) -> None:
        due_s, timer = self.core.next_deadline_s(), self._timer
        if due_s is None or (timer is not None and timer.call and timer.due_s <= due_s):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._clock.at(due_s, self._on_deadline)

    def _on_deadline(self) -> None:
        if self.alive:
            self.core.handle_deadline(self._clock.now_s)
            self.happened()
            self._set_deadline()

    def _do(self, order: orders.Order) -> None:
        match order:
            case orders.Send(state, frame):
                self._say(state, encode(frame))
            case orders.SendAll(states, frame):
                data = encode(frame)
                for state in states:
                    self._say(state, data)
            case orders.AskRun(state, request):
                self._say(state, encode(request))
            case orders.TakeBack(state, request_id):
                self._say(state, encode(fr.Cancel(request_id)))
            case orders.Provide(digest):
                self.on_wanted(digest)
            case orders.Meet(digest, members):
                for member in members:
                    self._meet(digest, member.host_id)
            case orders.CloseLink(state):
                self._clock.at(self._clock.now_s, partial(self._cut, self, state.host_id))
            case orders.JoinSwarm(digest, exclude):
                seq = self.line.core.number()
                joined = events.JoinWanted(seq, digest_key(digest), True, list(exclude))
                self.line.happened(joined)
            case orders.LeaveSwarm(digest):
                self.line.happened(events.LeaveWanted(digest_key(digest)))
            case orders.NoteHeld(digest, chunks, whole):
                self.line.happened(events.Noted(Delta(digest_key(digest), chunks, whole)))
            case orders.Deliver(digest):
                self.on_deliver(digest)
            case orders.FollowMap():
                self._clock.after(self.costs.disk_s, lambda: self._followed(order))
            case orders.KeepRecords(digest):
                self._clock.after(self.costs.disk_s, partial(self._kept, digest))
            case orders.CountFault() | orders.Fail() | orders.SyncBlob() | orders.RemoveBlob():
                pass
            case _:
                assert_never(order)

    def _say(self, state: LinkState, data: bytes) -> None:
        link = self.links.get(state.host_id)
        if link is not None and link.state is state and not state.closed:
            link.out.send_frames(data)

    def _followed(self, order: orders.FollowMap) -> None:
        if (blob := self.core.blobs.get(order.digest)) is not None and self.alive:
            held = self.held.get(order.digest, 0) & order.chunk_map.known.bits
            blob.map_followed(order.chunk_map, held, self._clock.now_s)
            self.happened()

    def _kept(self, digest: Digest) -> None:
        if (blob := self.core.blobs.get(digest)) is not None and self.alive:
            blob.records_kept(self.held.get(digest, 0), self._clock.now_s)
            self.happened()

    # --- whom the tracker names -----------------------------------------------------------------

    def _inventory(self) -> list[Delta]:
        blobs = self.core.blobs.items()
        return [Delta(digest_key(d), b.held.bit_count(), b.complete) for d, b in blobs if b.held]

    def _tracker_moved(self, up: bool) -> None:
        self.core.tracker_moved(self._clock.now_s, up=up)
        self.happened()

    def _take_handout(self, handout: Handout) -> None:
        self.core.tracker_named(Digest(handout.key))
        for member in handout.members:
            self._meet(Digest(handout.key), member.host_id)

    def follow(self, digest: Digest, other: HostId, then: Callable[[bool], None]) -> None:
        """Ask a host that is named for a blob too; `then` hears whether it could be reached."""
        self.core.blobs[digest].join(self._clock.now_s)
        self._meet(digest, other)
        if other in self._meeting:
            self._reaching.setdefault(other, []).append(then)
        else:
            self._clock.at(self._clock.now_s, partial(then, other in self.links))
        self.happened()

    def _reached(self, other: HostId) -> None:
        for then in self._reaching.pop(other, []):
            self._clock.at(self._clock.now_s, partial(then, other in self.links))

    def _meet(self, digest: Digest, other: HostId) -> None:
        """Ask a host whom the tracker named, once there is a link."""
        blob = self.core.blobs.get(digest)
        if blob is None or blob.complete or self.core.trust.banned(other, self._clock.now_s):
            return
        if (link := self.links.get(other)) is not None:
            blob.attach(link.state, self._clock.now_s)
            self.happened()
        elif (waiting := self._meeting.get(other)) is not None:
            waiting[digest] = None
        else:
            self._meeting[other] = {digest: None}
            self._connect(self, other)
