"""What comes over the links to other nodes, and whom of this node it is for."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final, Protocol

from p2pdist.errors import PeerFault, StoreError, UnknownKey
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import CLOSED_THERE, IDLE, Link
from p2pdist.exchange.transport import REPLACED
from p2pdist.model.ids import Digest, RequestId
from p2pdist.model.members import Role
from p2pdist.model.statements import (
    HashBatch,
    MapHead,
    RetiredKey,
    Revocation,
    Seal,
    TagStatement,
    Ticket,
)
from p2pdist.process import logs
from p2pdist.process.health import Health
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.ports import account_of_host, client_account
from p2pdist.store.ports import BlobStore
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.answer_lines import READS_AT_ONCE, SMALLS_AT_ONCE, AnswerLines, Work
from p2pdist.swarm.core.host import HostCore, SwarmFrame
from p2pdist.swarm.core.tickets import TICKET_S_MAX, may_have
from p2pdist.swarm.counters import NodeCounters
from p2pdist.swarm.finding import SmallFinder
from p2pdist.swarm.link_table import LinkTable
from p2pdist.swarm.neighbourhood import Neighbourhood
from p2pdist.swarm.proxy_links import ProxyLinks
from p2pdist.swarm.records import OpenedRecords
from p2pdist.swarm.server import Authority, Server
from p2pdist.swarm.smalls import SmallAnswer

log = logging.getLogger(__name__)

_USUAL_ENDS: Final = frozenset({IDLE, REPLACED, CLOSED_THERE})


class RouterPorts(Protocol):
    """What the router needs of its node."""

    store: BlobStore
    counters: NodeCounters
    tasks: TaskOwner
    is_proxy: bool
    core: HostCore
    links: LinkTable
    records: OpenedRecords
    actives: dict[Digest, ActiveBlob]
    smalls: SmallFinder
    neighbourhood: Neighbourhood
    proxy_links: ProxyLinks
    authority: Authority | None
    health: Health

    def punish(self, link: Link, fault: PeerFault) -> None: ...
    def carry_out(self) -> None: ...
    async def revoke(self, record: bytes) -> None: ...


class FrameRouter:
    """Implements the exchange's `LinkHandler`; a wrong frame is its sender's fault."""

    def __init__(self, node: RouterPorts, server: Server) -> None:
        self._node = node
        self._server = server
        self._smalls = AnswerLines(node.tasks, "serve small", at_once=SMALLS_AT_ONCE)
        self._reads, self._bulk_reads = (
            AnswerLines(node.tasks, name, at_once=READS_AT_ONCE)
            for name in ("read and serve", "read and serve bulk")
        )
        self._moving: list[ActiveBlob] = []
        """What went on at a link that is being replaced."""

    # --- links ------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        moving, self._moving = self._moving, []
        if self._node.neighbourhood.add(link):
            self._node.core.link_up(self._node.links.state(link))
            self._node.proxy_links.link_up(link)
            for active in moving:
                active.attach(link)

    def link_down(self, link: Link, reason: str) -> None:
        self._node.smalls.questions.link_down(link)
        for lines in (self._smalls, self._reads, self._bulk_reads):
            lines.link_down(link)
        level = logging.DEBUG if reason in _USUAL_ENDS else logging.INFO
        logs.event(log, level, "link.down", host=link.session.member.host_id, reason=reason)
        if reason == REPLACED:  # two dials crossed: what was asked on this one is asked on the next
            blobs = self._node.actives.values()
            self._moving = [active for active in blobs if active.asks(link)]
        idle = reason == IDLE or self._node.neighbourhood.is_aside(link)
        now_s = asyncio.get_running_loop().time()
        state = self._node.links.state(link)
        self._node.core.link_down(state, now_s, gone=not idle, why=reason)
        self._node.links.forget(link)
        self._node.carry_out()
        if self._node.neighbourhood.remove(link):
            self._node.proxy_links.link_down(link, idle=idle)

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        state = self._node.links.state(link)
        digest = self._node.core.requests.chunk_came(state, RequestId(request_id))
        if digest is None:
            self._node.counters.wasted_bytes += len(data)
        else:
            self._node.actives[digest].arrived(link, RequestId(request_id), chunk, data)

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None:
        answer = SmallAnswer(media_type, body)
        self._node.smalls.questions.answered(link, RequestId(request_id), answer)

    def frame(self, link: Link, frame: fr.Frame) -> None:
        if isinstance(frame, fr.LinkUse) and not frame.needed:
            self._hear_no_use(link)
            return
        # Said before it heard that we had no use for the link.
        if self._node.neighbourhood.bring_back(link):
            self._node.proxy_links.link_up(link)
        try:
            self._dispatch(link, frame)
        except PeerFault as fault:
            self._node.punish(link, fault)

    def _dispatch(self, link: Link, frame: fr.Frame) -> None:
        match frame:
            case fr.Interest() if self._node.authority is not None:
                token = client_account.set(_account_of(link))
                try:
                    self._hear(link, frame)
                finally:
                    client_account.reset(token)
            case fr.Interest() | fr.Uninterest() | fr.Offer() | fr.Retract() | fr.Working():
                self._hear(link, frame)
            case fr.WhoElse() | fr.Others():
                self._hear(link, frame)
            case fr.MapRecord(record):
                self._hear_record(link, record)
            case fr.Ticket(record):
                self._hear_ticket(link, record)
            case fr.Request() if not self._may_have(link, frame.digest):
                link.send(fr.Refuse(frame.request_id, fr.RefuseReason.UNKNOWN))
            case fr.Request():
                if self._server.takes_time(frame):
                    lines = self._bulk_reads if frame.bulk else self._reads
                    self._answer(lines, link, frame, partial(self._serve_read, link, frame))
                else:
                    self._server.serve_run(link, frame, self._node.actives.get(frame.digest))
            case fr.Cancel(request_id):
                link.cancel_run(request_id)
            case fr.Refuse(request_id):
                if self._node.smalls.questions.owns(RequestId(request_id)):
                    self._node.smalls.questions.answered(link, RequestId(request_id), None)
                else:
                    link.forget(request_id)
                    self._hear(link, frame)
            case fr.GetSmall(request_id, digest):
                small = self._server.serve_small
                work = partial(small, link, request_id, digest, self._node.authority)
                self._answer(self._smalls, link, frame, work)
            case fr.GetStatement(request_id, key):
                work = partial(self._server.serve_statement, link, request_id, key)
                self._answer(self._smalls, link, frame, work)
            case fr.StatementIs(request_id, record):
                self._node.smalls.questions.answered(link, RequestId(request_id), record)
            case fr.LinkUse():
                pass
            case _:
                raise PeerFault(f"unexpected frame {type(frame).__name__}")

    def _hear(self, link: Link, frame: SwarmFrame) -> None:
        now_s = asyncio.get_running_loop().time()
        self._node.core.hear(self._node.links.state(link), frame, now_s)
        self._node.carry_out()

    @staticmethod
    def _answer(
        lines: AnswerLines,
        link: Link,
        asked: fr.Request | fr.GetSmall | fr.GetStatement,
        work: Work,
    ) -> None:
        if not lines.ask(link, work):
            link.send(fr.Refuse(asked.request_id, fr.RefuseReason.BUSY))

    async def _serve_read(self, link: Link, request: fr.Request) -> None:
        """Hash what an earlier run left before it goes out the first time; what lies in no file is
        read here, and this lasts until it has gone out."""
        try:
            lost = await self._server.check(request)
        except StoreError as error:
            self._server.refuse(link, request, error)
            return
        if (active := self._node.actives.get(request.digest)) is not None:
            active.lost(lost)
        if not link.closed:
            await self._server.serve_read(link, request, self._node.actives.get(request.digest))

    def _hear_record(self, link: Link, record: bytes) -> None:
        try:
            statement = self._node.records.open(record)
        except RetiredKey as retired:
            # It goes on with a map that it began with when that was believed.
            statement = retired.statement
            if not isinstance(statement, HashBatch | Seal):
                return
            if self._node.core.blob_of_map(statement.map_id) is None:
                return
        match statement:
            case MapHead() | HashBatch() | Seal():
                state, now_s = self._node.links.state(link), asyncio.get_running_loop().time()
                self._node.core.hear_statement(state, statement, record, now_s)
                self._node.carry_out()
            case Revocation():
                self._node.tasks.start(self._node.revoke(record), name="revoke")
            case TagStatement() | Ticket():
                raise PeerFault(f"{type(statement).__name__} that nobody asked for")

    # --- tickets --------------------------------------------------------------------------------

    def _hear_ticket(self, link: Link, record: bytes) -> None:
        """Of a key that we do not believe, or no more good: nobody's fault while keys are changed,
        and between clocks that differ."""
        state = self._node.links.state(link)
        if state.tickets is None:
            raise PeerFault("a ticket on a link that proves nobody")
        try:
            ticket = self._node.records.open(record)
        except UnknownKey:
            return
        if not isinstance(ticket, Ticket) or ticket.host_id != link.session.member.host_id:
            raise PeerFault("no ticket of its own")
        left_s = min(TICKET_S_MAX, ticket.expires_at_s - self._node.health.sober_unix_s)
        if left_s > 0:
            now_s = asyncio.get_running_loop().time()
            self._node.core.hear_ticket(state, ticket.scope, now_s + left_s)

    def _may_have(self, link: Link, digest: Digest) -> bool:
        return may_have(self._node.links.state(link).tickets, digest)

    # --- links to proxies -----------------------------------------------------------------------

    def proxy_up(self, link: Link) -> None:
        for active in self._node.actives.values():
            if active.wants_proxy and self._node.proxy_links.owns(link, active.digest):
                active.attach(link)

    def needs(self, link: Link) -> bool:
        """Something of ours goes on at `link`, or may."""
        blobs = self._node.actives.values()
        asks = any(active.asks(link) for active in blobs)
        return link.busy or asks or self._node.smalls.questions.asks(link)

    def _hear_no_use(self, link: Link) -> None:
        if self.needs(link):
            link.send(fr.LinkUse(needed=True))
        else:
            link.close(IDLE)


def _account_of(link: Link) -> str:
    """On whose account is what has to be fetched for it: only a sealed link tells a host's id."""
    member = link.session.member
    if not link.sealed:
        return link.network
    return account_of_host(member.host_id, is_proxy=member.role is Role.PROXY)
