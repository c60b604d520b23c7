"""Finds what is small: whole blobs of one chunk, manifests, and what a tag stands for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from p2pdist.control.client import TrackerClient
from p2pdist.errors import PeerFault, StoreError
from p2pdist.exchange.link import Link
from p2pdist.model.control import Handout, SwarmKey, digest_key, tag_swarm_key
from p2pdist.model.ids import Digest, TagKey
from p2pdist.model.members import Member, Place
from p2pdist.model.statements import Keyring, RetiredKey
from p2pdist.model.tags import NotBelieved, TagRecord, believe_tag, newest, open_tag
from p2pdist.process import logs
from p2pdist.process.health import Health
from p2pdist.store.ports import BlobStore
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.counters import NodeCounters, source_of
from p2pdist.swarm.neighbourhood import Neighbourhood
from p2pdist.swarm.proxy_links import ProxyLinks
from p2pdist.swarm.smalls import PEER_ANSWER_S, PROXY_ANSWER_S, SmallAnswer, SmallQuestions

log = logging.getLogger(__name__)

LOOKUP_S: Final = 1.0
# Any of them may have slept through a release, or lie about what it heard last; who is away or slow
# must not make the others wait.
TAG_ANSWERS_S: Final = 2.0


class FinderPorts(Protocol):
    """What the finder needs of its node."""

    store: BlobStore
    keyring: Keyring
    health: Health
    place: Place
    counters: NodeCounters
    core: HostCore
    tracker: TrackerClient
    neighbourhood: Neighbourhood
    proxy_links: ProxyLinks

    def punish(self, link: Link, fault: PeerFault) -> None: ...


class SmallFinder:
    """The node's part for what needs no map: asks the store, the proxies and the swarm, in turn."""

    def __init__(self, node: FinderPorts) -> None:
        self.questions = SmallQuestions()
        self._node = node
        self._lookups: dict[SwarmKey, list[asyncio.Future[list[Member]]]] = {}

    async def fetch(self, digest: Digest) -> SmallAnswer | None:
        """Find a blob of one chunk or a manifest: in the store, at a proxy, then in the swarm."""
        stored = await self._node.store.get_small(digest)
        if stored is not None:
            return SmallAnswer(stored.media_type, stored.body)
        found = await self._node.proxy_links.ask_each(
            digest, lambda link: self._ask_small(link, digest, PROXY_ANSWER_S)
        )
        if found is not None:
            return found
        for member in await self._find(digest_key(digest)):
            link_or_none = await self._node.neighbourhood.reach(member)
            if link_or_none is not None:
                answer = await self._ask_small(link_or_none, digest, PEER_ANSWER_S)
                if answer is not None:
                    return answer
        return None

    async def _ask_small(self, link: Link, digest: Digest, timeout_s: float) -> SmallAnswer | None:
        try:
            answer = await self.questions.small(
                link, self._node.core.new_request_id(), digest, timeout_s
            )
        except PeerFault as fault:
            self._node.punish(link, fault)
            return None
        if answer is not None:
            source = source_of(link.session.member, self._node.place)
            self._node.counters.received[source] += len(answer.body)
            # The digest proves the body; its type would be the sender's word.
            answer = SmallAnswer("", answer.body, source)
            await self.keep(digest, answer)
        return answer

    async def keep(self, digest: Digest, answer: SmallAnswer) -> None:
        """Store and offer a whole small blob."""
        try:
            await self._node.store.put_small(digest, answer.body, answer.media_type)
        except StoreError as error:  # a full disk costs the others a source, not us the answer
            logs.event(log, logging.ERROR, "store.failed", digest=digest, error=str(error))
        else:
            self._node.tracker.note(digest_key(digest), 1, True)

    async def keep_statement(self, key: TagKey, record: bytes, *, index: bool = False) -> None:
        """Store and offer what a proxy said about a tag, or (`index`) about a layer's index."""
        if await self._node.store.get_statement(key) == record:
            return
        try:
            await self._node.store.put_statement(key, record, index=index)
        except StoreError as error:
            logs.event(log, logging.ERROR, "store.failed", error=str(error))
        else:
            self._node.tracker.note(tag_swarm_key(key), 1, True)

    async def held_statement(self, key: TagKey) -> TagRecord | None:
        """The last that was heard about a tag, alive or not."""
        record = await self._node.store.get_statement(key)
        if record is None:
            return None
        try:
            return open_tag(self._node.keyring, key, record)
        except (PeerFault, NotBelieved):
            return None  # its key was taken out of the configuration

    async def tag_statement(self, key: TagKey, held: TagRecord | None) -> TagRecord | None:
        """Ask all whom the tracker names what a tag stands for; the newest word counts."""
        told: list[TagRecord] = []
        members = await self._find(tag_swarm_key(key))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAG_ANSWERS_S):
                await asyncio.gather(*(self._ask_tag(m, key, held, told) for m in members))
        return newest(told)

    async def _ask_tag(
        self, member: Member, key: TagKey, held: TagRecord | None, told: list[TagRecord]
    ) -> None:
        link = await self._node.neighbourhood.reach(member)
        if link is None:
            return
        rid = self._node.core.new_request_id()
        record = await self.questions.statement(link, rid, key, PEER_ANSWER_S)
        if record is None:
            return
        try:
            tag = open_tag(self._node.keyring, key, record)
            told.append(believe_tag(tag, now_unix_s=self._node.health.sober_unix_s, held=held))
        except (RetiredKey, NotBelieved) as why:
            logs.event(log, logging.INFO, "tag.not_believed", peer=member.host_id, error=str(why))
        except PeerFault as fault:
            self._node.punish(link, fault)

    async def _find(self, key: SwarmKey) -> list[Member]:
        """Ask the tracker who holds `key`; empty when it does not answer in time."""
        future: asyncio.Future[list[Member]] = asyncio.get_running_loop().create_future()
        self._lookups.setdefault(key, []).append(future)
        self._node.tracker.join(key, member=False)
        try:
            async with asyncio.timeout(LOOKUP_S):
                return await future
        except TimeoutError:
            return []
        finally:
            waiting = self._lookups.get(key, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._lookups.pop(key, None)

    def named(self, handout: Handout) -> None:
        """The tracker's answer to a lookup."""
        for future in self._lookups.pop(SwarmKey(handout.key), []):
            if not future.done():
                future.set_result(list(handout.members))
