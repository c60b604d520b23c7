"""One host as a member of swarms: its links, its blobs, and what it asked for.

    what happened ──▶ HostCore, BlobCore ──▶ orders

A shell tells it what happened and carries out its orders; daemons and simulations drive the same
class.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from p2pdist.exchange.frames import Request
from p2pdist.model.ids import Digest, HostId, MapId, RequestId
from p2pdist.model.members import Place
from p2pdist.model.statements import HashBatch, MapHead, Seal
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.bulk import BulkTraffic
from p2pdist.swarm.core.event_log import EventLog, Kind
from p2pdist.swarm.core.host_orders import AskRun, Order, TakeBack
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.request_table import RequestTable
from p2pdist.swarm.core.uplink import Uplink


class HostCore:
    """Pure: time enters as monotonic `now_s`, chance through `rng`. Implements `HostPorts`."""

    def __init__(
        self,
        place: Place,
        *,
        is_proxy: bool,
        rng: Random,
        proxy_of_ours: Callable[[HostId], bool],
        revoked: Callable[[MapId], bool],
    ) -> None:
        """`proxy_of_ours`: a host is one of the proxies that this host was told to use; `revoked`:
        a map was taken back."""
        self.place = place
        self.is_proxy = is_proxy
        self.rng = rng
        self.uplink = Uplink()
        self.bulk = BulkTraffic()
        self.events = EventLog()
        self.orders: deque[Order] = deque()
        """To be carried out in this order; the shell takes them out."""
        self.revocations = 0
        self.requests = RequestTable()
        self.blobs: dict[Digest, BlobCore] = {}
        """In motion: somebody reads, fetches or asks for them."""
        self.revoked = revoked
        self._proxy_of_ours = proxy_of_ours
        self._maps: dict[MapId, Digest] = {}
        """Those of blobs in motion, and the heads that were heard of them."""
        self._woken: dict[Digest, None] = {}
        self._due: list[tuple[float, int, BlobCore]] = []
        """A heap of when to look at which blob; what is not the blob's `due_s` any more is void."""
        self._entries = itertools.count()

    # --- blobs ----------------------------------------------------------------------------------

    def take_up(self, digest: Digest, size_bytes: int, now_s: float) -> BlobCore:
        """Begin the motion of a blob; one that was in motion must have been let go."""
        assert digest not in self.blobs
        blob = self.blobs[digest] = BlobCore(self, digest, size_bytes, now_s)
        return blob

    def let_go(self, blob: BlobCore, now_s: float) -> None:
        """End its motion; what came of it stays in the store."""
        blob.end(now_s)
        if self.blobs.get(blob.digest) is blob:
            del self.blobs[blob.digest]
            for map_id in [m for m, digest in self._maps.items() if digest == blob.digest]:
                del self._maps[map_id]

    # --- what is signed -------------------------------------------------------------------------

    def hear_statement(
        self, link: LinkState, statement: MapHead | HashBatch | Seal, record: bytes, now_s: float
    ) -> None:
        """`link` passed on what a proxy signed, as `record`."""
        if isinstance(statement, MapHead):
            blob = self.blobs.get(statement.digest)
            if blob is not None:  # its batches follow at once
                self._maps.setdefault(statement.map_id, statement.digest)
        else:
            blob = self.blob_of_map(statement.map_id)
        if blob is not None:
            blob.hear(link, statement, now_s, record)

    def blob_of_map(self, map_id: MapId) -> BlobCore | None:
        """The blob in motion that has this map, or may have it."""
        digest = self._maps.get(map_id)
        return self.blobs.get(digest) if digest is not None else None

    def route_map(self, map_id: MapId, digest: Digest) -> None:
        self._maps[map_id] = digest

    # --- links ----------------------------------------------------------------------------------

    def link_down(self, link: LinkState, now_s: float, *, gone: bool, why: str = "") -> None:
        """Nothing more comes over `link`. `gone`: for all we know its host is, too; else the link
        alone ended, of no use. `why`: for who reads of it."""
        link.closed, link.closed_why = True, why
        self.requests.link_down(link)
        for blob in self.blobs.values():
            blob.link_down(link, now_s, gone=gone)

    def punished(self, host: HostId, reason: str, now_s: float) -> None:
        """A wrong word of `host` was counted against it: blobs that are asked of it show that."""
        for blob in self.blobs.values():
            if blob.asks_host(host):
                blob.log.note(Kind.PUNISHED, now_s, host=host, text=reason)

    def configured_proxy(self, link: LinkState) -> bool:
        return self._proxy_of_ours(link.host_id)

    # --- requests -------------------------------------------------------------------------------

    def new_request_id(self) -> RequestId:
        return self.requests.new_id()

    def ask(self, link: LinkState, request: Request, chunks: Sequence[tuple[int, int]]) -> None:
        self.requests.expect(request.request_id, request.digest, link, request.count)
        self.orders.append(AskRun(link, request, chunks))

    def take_back(self, link: LinkState, request_id: RequestId) -> None:
        self.requests.withdraw(request_id)
        self.orders.append(TakeBack(link, request_id))

    # --- turns ----------------------------------------------------------------------------------

    def wake(self, digest: Digest) -> None:
        self._woken[digest] = None

    @property
    def woken(self) -> bool:
        """There is something to ask or to offer: `act` is to be called."""
        return bool(self._woken)

    def act(self, now_s: float) -> None:
        """Ask and offer, once for all that happened until now."""
        woken, self._woken = self._woken, {}
        for digest in woken:
            if (blob := self.blobs.get(digest)) is not None:
                blob.act(now_s)
                self._look_at_in_time(blob)

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` is to be called; None: not before something else happens."""
        while self._due:
            due_s, _, blob = self._due[0]
            if due_s == blob.due_s and self.blobs.get(blob.digest) is blob:
                return due_s
            heapq.heappop(self._due)
        return None

    def handle_deadline(self, now_s: float) -> None:
        """Look at the blobs that are due. Costs O(log blobs) for each of them."""
        while (due_s := self.next_deadline_s()) is not None and due_s <= now_s:
            _, _, blob = heapq.heappop(self._due)
            blob.due_s = math.inf
            blob.handle_deadline(now_s)
            self._look_at_in_time(blob, after_s=now_s)

    def _look_at_in_time(self, blob: BlobCore, after_s: float = -math.inf) -> None:
        """`after_s`: it was just looked at, and is so again in the next turn at the earliest."""
        due_s = blob.next_deadline_s()
        if due_s is not None and due_s < blob.due_s:
            blob.due_s = due_s if due_s > after_s else math.nextafter(after_s, math.inf)
            heapq.heappush(self._due, (blob.due_s, next(self._entries), blob))

    # --- whoever waits --------------------------------------------------------------------------

    def wait_began(self, now_s: float) -> None:
        """A reader of this host waits for bytes: bulk makes room."""
        if self.bulk.gate.wait_began(now_s):
            self._make_room(now_s)

    def wait_ended(self, now_s: float) -> None:
        self.bulk.gate.wait_ended(now_s)

    def urgent_bytes(self, now_s: float) -> None:
        """Bytes came in from outside that somebody in this datacenter waits for."""
        if self.bulk.gate.urgent_bytes(now_s):
            self._make_room(now_s)

    def _make_room(self, now_s: float) -> None:
        for blob in self.blobs.values():
            blob.make_room(now_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self.requests.validate()
        assert set(self._maps.values()) <= self.blobs.keys()
        for digest, blob in self.blobs.items():
            assert blob.digest == digest
            blob.validate()
