"""Drives the host's core: turns of the loop, deadlines, and what it orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import assert_never

from p2pdist.control.client import TrackerClient
from p2pdist.errors import PeerFault
from p2pdist.exchange.codec import encode
from p2pdist.exchange.frames import Cancel
from p2pdist.exchange.link import Link
from p2pdist.model.control import digest_key
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Member
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.host_orders import (
    AskRun,
    CloseLink,
    CountFault,
    Deliver,
    Fail,
    FollowMap,
    JoinSwarm,
    KeepRecords,
    LeaveSwarm,
    LocalOrder,
    Meet,
    NoteHeld,
    Order,
    Provide,
    RemoveBlob,
    Send,
    SendAll,
    SyncBlob,
    TakeBack,
)
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.link_table import LinkTable
from p2pdist.swarm.turn import Turn


class HostDriver:
    """One per node; every event of the core is followed by `carry_out`."""

    def __init__(
        self,
        core: HostCore,
        links: LinkTable,
        *,
        tracker: Callable[[], TrackerClient],
        count_fault: Callable[[HostId, PeerFault], None],
        provide: Callable[[Digest, bool], None],
        meet: Callable[[Digest, Sequence[Member]], None],
        local: Callable[[LocalOrder], None],
    ) -> None:
        """`count_fault`: a host was wrong; `provide`: somebody asks for a blob, as bulk or not;
        `meet` asks hosts that were named for a blob; `local` does what is to be done to a blob of
        this host."""
        self._count_fault = count_fault
        self._provide = provide
        self._core = core
        self._links = links
        self._tracker = tracker
        self._meet = meet
        self._local = local
        self._busy = False
        self._loop = asyncio.get_running_loop()
        self._turn = Turn(self._act, self._on_deadline)

    def end(self) -> None:
        """Do nothing by itself any more."""
        self._turn.end()

    def _act(self) -> None:
        """Once for all that happened in this turn of the loop."""
        self._core.act(self._loop.time())
        self.carry_out()
        self._set_deadline()

    def _on_deadline(self) -> None:
        self._core.handle_deadline(self._loop.time())
        self.carry_out()
        self._set_deadline()

    def _set_deadline(self) -> None:
        if (due_s := self._core.next_deadline_s()) is not None:
            self._turn.at_latest(due_s)

    def carry_out(self) -> None:
        """Do all that was ordered, in its order; what that leads to comes after it."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._core.orders:
                self._do(self._core.orders.popleft())
        finally:
            self._busy = False
        if self._core.woken:
            self._turn.wake()

    def _do(self, order: Order) -> None:
        match order:
            case Send(state, frame):
                if (link := self._live(state)) is not None:
                    link.send(frame)
            case SendAll(states, frame):
                data = encode(frame)
                for state in states:
                    if (link := self._live(state)) is not None:
                        link.send_encoded(data)
            case AskRun(state, request, chunks):
                if (link := self._live(state)) is not None:
                    link.expect_chunks(request.request_id, chunks)
                    link.send(request)
            case TakeBack(state, request_id):
                if (link := self._live(state)) is not None:
                    link.forget(request_id)
                    link.send(Cancel(request_id))
            case JoinSwarm(digest, exclude):
                self._tracker().join(digest_key(digest), member=True, exclude=exclude)
            case LeaveSwarm(digest):
                self._tracker().leave(digest_key(digest))
            case NoteHeld(digest, chunks, whole):
                self._tracker().note(digest_key(Digest(digest)), chunks, whole)
            case Meet(digest, members):
                self._meet(digest, members)
            case CloseLink(state, why):
                if (link := self._live(state)) is not None:
                    link.close(why)
            case CountFault(state, fault):
                self._count_fault(state.host_id, fault)
            case Provide(digest, bulk):
                self._provide(digest, bulk)
            case Deliver() | Fail() | FollowMap() | KeepRecords() | SyncBlob() | RemoveBlob():
                self._local(order)
            case _:
                assert_never(order)

    def _live(self, state: LinkState) -> Link | None:
        link = self._links.link(state)
        return link if link is not None and not link.closed else None
