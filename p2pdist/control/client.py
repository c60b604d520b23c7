"""A host's line to its tracker: always being kept up, never waited for by a pull.

What is said, and when, `control.core` decides; here are its socket, its clock and its tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final, Protocol, assert_never

from p2pdist.control.core import events, orders
from p2pdist.control.core.orders import PrewarmOrder
from p2pdist.control.core.state import ControlCore, Phase
from p2pdist.control.dial import TrackerDial
from p2pdist.control.line import ClockHeard, ControlLine
from p2pdist.model.cluster_secrets import SecretSource
from p2pdist.model.control import (
    Delta,
    Describe,
    Handout,
    LeaseAnswer,
    PrewarmReport,
    Proof,
    Renewed,
    Status,
    SwarmKey,
    Trace,
)
from p2pdist.model.control_wire import shared_codecs
from p2pdist.model.health import Reason
from p2pdist.model.ids import Digest
from p2pdist.model.members import Member
from p2pdist.process import logs
from p2pdist.process.health import TRACKER, Health
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.tasks import TaskOwner

HANG_UP_S: Final = 1.0

log = logging.getLogger(__name__)


class TrackerListener(Protocol):
    """What the host does with the tracker's word; called on the event loop, must not block."""

    def tracker_up(self) -> None: ...

    def tracker_down(self) -> None: ...

    def handout(self, handout: Handout) -> None: ...

    def revoked(self, records: list[bytes]) -> None:
        """The records are as the tracker sent them: check each against the host's own keys."""
        ...

    def full_announce(self) -> list[Delta]:
        """Everything that this host holds; asked for once per connection."""
        ...


class TrackerClient:
    """Keeps one connection to the first of `urls` that answers (base URLs, `tcp://host:port`).

    `me` and `numbers` are asked at each connection and each heartbeat, `me` once it is known where
    the connection comes from (`spoke_from`: the URL and the address of this end). All methods are
    for the event loop and return at once, but `lease`, `trace`, `renew` and `close`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        secret: SecretSource,
        me: Callable[[], Member],
        listener: TrackerListener,
        rng: Random,
        numbers: Callable[[], dict[str, float]],
        describe: Callable[[], Describe] | None = None,
        on_order: Callable[[PrewarmOrder], None] = lambda _: None,
        spoke_from: Callable[[str, str], None] = lambda url, host: None,
        instance: bytes = b"",
        on_id_in_use: Callable[[str], None] = lambda _: None,
        health: Health | None = None,
        identity: IdentityHolder | None = None,
    ) -> None:
        """`describe`: what to say of this host first; without it, it takes no prewarm orders.
        `on_order` gets the tracker's; called on the event loop, must not block. `health` is told of
        other secrets and clocks. `secret` is asked at each dial. `instance`: of this process, see
        `clones`; `on_id_in_use` hears what a tracker says of another host with our id, before it is
        dialled again. `identity`: with it TLS is spoken; a tracker without one is then spoken to in
        clear, unless required."""
        self._core = ControlCore(urls, rng=rng, describes=describe is not None)
        self._secret = secret
        self._me = me
        self._listener = listener
        self._numbers = numbers
        self._describe = describe
        self._on_order = on_order
        self._spoke_from = spoke_from
        self._instance = instance
        self._on_id_in_use = on_id_in_use
        self._health = health or Health()
        self._identity = identity
        if identity is not None:
            identity.revocations.on_more.append(self._leave_revoked)
        self._clear: set[str] = set()
        """The trackers to speak to in clear at the next dial: they were found to have no TLS."""
        self._said_clear: set[str] = set()
        self.unnamed = ""
        """Why the tracker of the last connection tells nobody of this host; empty: it does."""
        self._codecs = shared_codecs()
        self._tasks = TaskOwner("tracker client")
        self._dial: TrackerDial | None = None
        """The last one."""
        self._asked: dict[int, asyncio.Future[Any]] = {}
        """What waits for the answer to a question."""
        self._orders: deque[orders.Order] = deque()
        self._carrying_out = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        """When it fires; uvloop's own word is rounded to milliseconds."""

    # --- for the host ---------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._core.connected

    @property
    def tracker(self) -> Member | None:
        """Whom we are connected to."""
        return self._core.tracker

    def start(self) -> None:
        """Begin to connect; without any URL the host does without a tracker."""
        self.happened(events.Started())

    async def close(self) -> None:
        """Say goodbye, so that the tracker names this host to nobody any more."""
        self.happened(events.Closing())
        await self._tasks.close()
        if self._dial is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANG_UP_S):
                    await self._dial.ended

    def note(self, key: SwarmKey, held_chunks: int, complete: bool) -> None:
        """Say what the host now holds of `key`: at the pace of the tracker, but complete blobs
        and retractions at once."""
        self.happened(events.Noted(Delta(key, held_chunks, complete)))

    def join(self, key: SwarmKey, *, member: bool = True, exclude: Sequence[str] = ()) -> int:
        """Ask for neighbours; `listener.handout` gets the answer with the number returned here.

        A member stays in the swarm, over any number of connections, until `leave`.
        """
        seq = self._core.number()
        self.happened(events.JoinWanted(seq, key, member, exclude))
        return seq

    def leave(self, key: SwarmKey) -> None:
        self.happened(events.LeaveWanted(key))

    async def lease(
        self, key: SwarmKey, *, timeout_s: float, on_behalf: Member | None = None
    ) -> LeaseAnswer | None:
        """Ask for the right to fetch `key` from outside; None: no tracker answered in time.

        A granted lease is renewed until `end_lease`. `on_behalf`: whom a tracker asks for.
        """
        seq, until_s = self._core.number(), asyncio.get_running_loop().time() + timeout_s
        answer: LeaseAnswer | None = await self._ask(
            seq, events.LeaseWanted(seq, key, until_s, on_behalf)
        )
        return answer

    async def trace(self, layer: Digest, *, timeout_s: float) -> list[int]:
        """Return the units that are likely to be read first; none where nobody knows, or answers
        in time."""
        seq, until_s = self._core.number(), asyncio.get_running_loop().time() + timeout_s
        units: list[int] = await self._ask(seq, events.TraceWanted(seq, layer, until_s))
        return units

    @property
    def renews(self) -> bool:
        """There is a tracker, over TLS, that signs this host's next certificate."""
        return self._core.phase is Phase.UP and self._dial is not None and self._dial.renews

    def show_certificate(self) -> bool:
        """Connect anew if the connection was begun with another certificate than the one of today;
        return whether it was. The tracker renews what it was shown."""
        shown = None if self._dial is None else self._dial.shown
        if shown is None or self._identity is None or shown is self._identity.current:
            return False
        self.happened(events.Showing())
        return True

    def cut_unbelieved(self) -> None:
        """Connect anew if the connection stands under a secret that is not believed any more."""
        dial = self._dial
        if dial is None or dial.line is None or dial.ended.done():  # the next one asks for them
            return
        if dial.line.mark in self._secret().marks:
            return
        if self._core.phase is Phase.UP:
            self.happened(events.Showing())
        else:  # perhaps in the middle of a handshake under what is gone
            dial.abort("other cluster secrets")

    async def renew(self, request: bytes, *, timeout_s: float) -> Renewed | None:
        """Have the request for a certificate signed; None: no tracker answered in time."""
        seq, until_s = self._core.number(), asyncio.get_running_loop().time() + timeout_s
        answer: Renewed | None = await self._ask(seq, events.RenewalWanted(seq, request, until_s))
        return answer

    def _leave_revoked(self) -> None:
        """Leave a tracker that was revoked while we are connected to it: the next handshake finds
        out why."""
        tracker, own = self.tracker, self._identity
        if tracker is not None and own is not None and tracker.host_id in own.current.revoked:
            self.happened(events.Showing())

    def end_lease(self, key: SwarmKey, fence: int) -> None:
        self.happened(events.LeaseEnded(key, fence))

    def revoke(self, records: Sequence[bytes]) -> None:
        """Pass on signed revocations, to this tracker and to those of later connections."""
        self.happened(events.RevocationsMade(records))

    def tell(self, message: PrewarmReport | Proof | Trace) -> None:
        """Answer an order, or tell of a start. Without a connection it is dropped: the next tracker
        orders anew, and the next start tells as much."""
        self.happened(events.Told(message))

    def tell_who_we_are(self) -> None:
        """Connect anew if the tracker knows this host as something that it is not any more."""
        self.happened(events.WeAre(self._me()))

    async def _ask(self, seq: int, question: events.Question) -> Any:
        """Return the core's answer, which comes by the end that the question names."""
        answer = self._asked[seq] = asyncio.get_running_loop().create_future()
        try:
            self.happened(question)
            return await answer
        except asyncio.CancelledError:
            self.happened(events.GaveUp(seq))
            raise
        finally:
            del self._asked[seq]

    # --- driving the core -----------------------------------------------------------------------

    def happened(self, event: events.Event) -> None:
        self._carry_out(self._core.handle(event, asyncio.get_running_loop().time()))

    def _wake(self) -> None:
        self._timer = None
        # uvloop may call a millisecond early: without this it would do so until it has passed.
        now_s = max(asyncio.get_running_loop().time(), self._timer_s)
        self._carry_out(self._core.handle_deadline(now_s))

    def _carry_out(self, given: Sequence[orders.Order]) -> None:
        """Carry out orders in the order in which they were given, also those that come of one."""
        self._orders.extend(given)
        if self._carrying_out:
            return
        self._carrying_out = True
        try:
            while self._orders:
                self._try_one(self._orders.popleft())
        finally:
            self._carrying_out = False
        self._set_timer()

    def _try_one(self, order: orders.Order) -> None:
        try:
            self._carry_out_one(order)
        except Exception:
            log.exception("tracker client failed; it connects again")
            self.happened(events.Broke())

    def _set_timer(self) -> None:
        """Wake when the core wants it. A timer that comes too early does no harm: the next one is
        set by it, which is cheaper than one more for each event that puts a deadline off."""
        next_s, timer = self._core.next_deadline_s(), self._timer
        if timer is not None and (next_s is None or next_s < self._timer_s):
            timer.cancel()
            timer = None
        if timer is None and next_s is not None:
            timer = asyncio.get_running_loop().call_at(next_s, self._wake)
            self._timer_s = next_s
        self._timer = timer

    def _carry_out_one(self, order: orders.Order) -> None:
        if isinstance(order, orders.HostOrder):
            self._tell_host(order)
        elif isinstance(order, orders.Dial):
            self._dial = TrackerDial(self, order.line, order.url)
            self._dial.start(self._tasks)
        elif self._dial is not None and self._dial.number == order.line:
            self._use(self._dial, order)

    def _tell_host(self, order: orders.HostOrder) -> None:
        match order:
            case orders.TrackerUp(refused, unnamed):
                self._heard_refused(refused, unnamed)
                if self._dial is not None:
                    self._health.mended(Reason.IDENTITY_REFUSED, self._dial.url)
                self._listener.tracker_up()
            case orders.TrackerDown():
                self._listener.tracker_down()
            case orders.TakeHandout(handout):
                self._listener.handout(handout)
            case orders.TakeRevoked(records):
                self._listener.revoked(records)
            case orders.TakeRevokedHosts(records):
                if self._identity is not None:
                    self._tasks.start(self._identity.hear_revoked(records), name="revoked hosts")
            case orders.TakePrewarm(prewarm):
                self._on_order(prewarm)
            case orders.AnswerLease(seq, answer):
                self._answer(seq, answer)
            case orders.AnswerTrace(seq, units):
                self._answer(seq, units)
            case orders.AnswerRenewal(seq, renewed):
                self._answer(seq, renewed)
            case _:
                assert_never(order)

    def _heard_refused(self, refused: str, unnamed: bool) -> None:
        self.unnamed = refused if unnamed else ""
        if refused:
            text = "others are not told of an address of this host"
            logs.event(log, logging.INFO, "tracker.address_refused", detail=f"{text}: {refused}")

    def _answer(self, seq: int, answer: LeaseAnswer | list[int] | Renewed | None) -> None:
        asked = self._asked.get(seq)
        if asked is not None and not asked.done():
            asked.set_result(answer)

    def _use(self, dial: TrackerDial, order: orders.OrderOfLine) -> None:
        match order:
            case orders.Abort(_, why):
                dial.abort(why)
            case orders.HangUp(_, code):
                dial.hang_up(code)
            case orders.AskInventory(number):
                self.happened(events.InventoryTold(number, self._listener.full_announce()))
            case _:
                assert dial.line is not None
                self._write(dial.line, order)

    def _write(self, line: ControlLine, order: orders.Writing) -> None:
        match order:
            case orders.Send(_, message):
                line.send(message)
            case orders.SendDescription():
                assert self._describe is not None
                line.send(self._describe())
            case orders.SendNumbers():
                line.send(Status(self._numbers()))
            case orders.Ping():
                line.ping()
            case orders.ReportDrained(number):
                self._tasks.start(self._report_drained(line, number), name="inventory")
            case _:
                assert_never(order)

    async def _report_drained(self, line: ControlLine, number: int) -> None:
        await line.drained()
        self.happened(events.Drained(number))

    # --- for the dial ---------------------------------------------------------------------------

    def line(self, dial: TrackerDial, from_host: str) -> tuple[ControlLine, Member]:
        self._spoke_from(dial.url, from_host)
        me = self._me()
        line = ControlLine(
            dial,
            self._secret(),
            me,
            self._codecs,
            unix_ms=self._health.unix_ms,
            instance=self._instance,
            against=self._against,
        )
        line.on_clock = partial(self._hear_clock, dial.url)
        return line, me

    def _against(self, der: bytes, member: Member) -> str:
        assert self._identity is not None, "TLS was spoken"
        return self._identity.current.against(der, member)

    def tls(self, dial: TrackerDial) -> ssl.SSLContext | None:
        spoken = None if self._identity is None else self._identity.spoken
        if spoken is None or dial.url in self._clear:
            self._clear.discard(dial.url)  # the dial after this one tries TLS again
            return None
        dial.shown = spoken
        return spoken.client

    def lost(self, dial: TrackerDial, why: str) -> None:
        if self._core.phase is Phase.CLOSED:
            return
        line, url = dial.line, dial.url
        if line is not None and line.wrong_secret:
            self._health.happened(Reason.WRONG_SECRET, url, f"the tracker {url} has another secret")
        if line is not None and line.id_in_use:
            self._on_id_in_use(f"{url}: {line.id_in_use}")
        if line is not None and line.identity_refused:
            self._health.happened(Reason.IDENTITY_REFUSED, url, f"{url}: {line.identity_refused}")
        elif dial.without_tls:
            self._no_identity(url)
        logs.event(log, logging.INFO, "tracker.lost", url=url, error=why)

    def _no_identity(self, url: str) -> None:
        """It answered in clear to a dial for TLS."""
        assert self._identity is not None
        if self._identity.required:
            detail = f"the tracker {url} has no identity, and cluster.require_identity is set"
            self._health.happened(Reason.IDENTITY_REFUSED, url, detail)
            return
        self._clear.add(url)
        if url not in self._said_clear:
            self._said_clear.add(url)
            text = "it has no identity: it is spoken to in clear, under the cluster secret alone"
            logs.event(log, logging.WARNING, "tracker.no_identity", url=url, detail=text)

    def _hear_clock(self, url: str, told: ClockHeard) -> None:
        self._health.mended(Reason.WRONG_SECRET, url)  # it is told behind the tracker's proof only
        self._health.heard_clock(
            TRACKER, url, told.unix_ms, asked_s=told.asked_s, answered_s=told.answered_s
        )
