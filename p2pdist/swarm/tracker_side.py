"""What the tracker says to this node, or a proxy in its stead, and what the node says it holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from p2pdist.errors import PeerFault
from p2pdist.model.control import Delta, Handout, digest_key, tag_swarm_key
from p2pdist.model.ids import Digest
from p2pdist.model.members import Member
from p2pdist.process import logs
from p2pdist.process.tasks import TaskOwner
from p2pdist.store.ports import BlobStore
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.finding import SmallFinder
from p2pdist.swarm.neighbourhood import Neighbourhood
from p2pdist.swarm.records import OpenedRecords

log = logging.getLogger(__name__)


class TrackerSidePorts(Protocol):
    """What this needs of its node."""

    store: BlobStore
    tasks: TaskOwner
    records: OpenedRecords
    core: HostCore
    actives: dict[Digest, ActiveBlob]
    smalls: SmallFinder
    neighbourhood: Neighbourhood

    def carry_out(self) -> None: ...
    async def revoke(self, record: bytes) -> None: ...


class TrackerSide:
    """Implements the tracker client's listener."""

    def __init__(self, node: TrackerSidePorts, servable: Callable[[Digest], bool]) -> None:
        self._node = node
        self._servable = servable

    def tracker_up(self) -> None:
        logs.event(log, logging.INFO, "tracker.up")
        self._moved(up=True)

    def tracker_down(self) -> None:
        logs.event(log, logging.WARNING, "tracker.down")
        self._moved(up=False)

    def _moved(self, *, up: bool) -> None:
        self._node.core.tracker_moved(asyncio.get_running_loop().time(), up=up)
        self._node.carry_out()

    def handout(self, handout: Handout) -> None:
        self._node.smalls.named(handout)
        digest = Digest(handout.key)
        self._node.core.tracker_named(digest)
        active = self._node.actives.get(digest)
        if active is not None and not active.complete:
            active.note(Kind.NAMED, count=len(handout.members))
        self.meet(digest, handout.members)

    def meet(self, digest: Digest, members: Sequence[Member]) -> None:
        """Ask those for a blob whom the tracker, or a proxy in its stead, named."""
        active = self._node.actives.get(digest)
        if active is None or active.complete:
            return
        for member in members:
            self._node.tasks.start(self._meet(active, member), name=f"meet {member.host_id[:8]}")

    async def _meet(self, active: ActiveBlob, member: Member) -> None:
        link = await self._node.neighbourhood.reach(member)
        if link is None:
            active.note(Kind.UNREACHED, host=member.host_id)
        elif not active.complete:
            active.attach(link)

    def revoked(self, records: list[bytes]) -> None:
        for record in records:
            try:
                self._node.records.open(record)
            except PeerFault as fault:  # the tracker supplies no keys: a bad record is just noise
                logs.event(log, logging.WARNING, "revocation.refused", error=str(fault))
                continue
            self._node.tasks.start(self._node.revoke(record), name="revoke")

    def full_announce(self) -> list[Delta]:
        """Everything this host holds and may hand out, for a tracker that knows nothing."""
        deltas = [
            Delta(digest_key(b.digest), len(b.verified), b.complete)
            for b in self._node.store.blobs()
            if b.verified and self._servable(b.digest)
        ]
        deltas += [
            Delta(digest_key(d), 1, True) for d in self._node.store.smalls() if self._servable(d)
        ]
        deltas += [Delta(tag_swarm_key(k), 1, True) for k in self._node.store.statement_keys()]
        return deltas
