"""One try to reach a tracker, from the dial to the end of the line that it became."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Protocol

from p2pdist.control.core.events import Connected, Greeted, Heard, LineEvent, LineLost, Received
from p2pdist.control.line import ControlLine
from p2pdist.exchange.dialling import connected
from p2pdist.model.control import FromTracker
from p2pdist.model.control_wire import FEATURE_RENEW, CloseCode, parse_tracker_url
from p2pdist.model.handshake import Session
from p2pdist.model.members import Member
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.tasks import TaskOwner
from p2pdist.process.tls import TlsTransport

log = logging.getLogger(__name__)


class Dialler(Protocol):
    """What a try needs of its client."""

    def line(self, dial: TrackerDial, from_host: str) -> tuple[ControlLine, Member]:
        """Return the line to use from that address of ours, and whom its hello names."""
        ...

    def tls(self, dial: TrackerDial) -> ssl.SSLContext | None:
        """What to speak TLS with to that tracker; None: it is spoken to in clear."""
        ...

    def happened(self, event: LineEvent) -> None: ...

    def lost(self, dial: TrackerDial, why: str) -> None:
        """Called once for every try, after its `LineLost`."""
        ...


class TrackerDial:
    """Tells its client what happens, as events of line `number`; `LineLost` is the last one."""

    def __init__(self, client: Dialler, number: int, url: str) -> None:
        self.number = number
        self.url = url
        self.line: ControlLine | None = None
        self.tls: TlsTransport | None = None
        """Between the line and the wire, where the dial is for TLS."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why."""
        self.renews = False
        """The tracker signs our next certificate if it is asked to."""
        self.shown: HostIdentity | None = None
        """What we speak TLS with on it."""
        self._client = client
        self._stands = False
        self._why = ""
        self._task: asyncio.Task[None]

    @property
    def without_tls(self) -> bool:
        """The tracker answered a dial for TLS in clear. One that is asked too much says so unread:
        that tells nothing."""
        put_off = self.line is not None and self.line.retry_after_s is not None
        return self.tls is not None and self.tls.in_clear and not put_off

    def start(self, tasks: TaskOwner) -> None:
        self._task = tasks.start(self._run(), name="dial")
        # A task that is cancelled before it has begun runs nothing of itself.
        self._task.add_done_callback(self._dialled)

    def abort(self, why: str) -> None:
        self._why = self._why or why
        if self._stands and self.line is not None:
            self.line.abort(why)
        else:
            self._task.cancel()

    def hang_up(self, code: CloseCode) -> None:
        if self.line is not None:
            self.line.hang_up(code)

    async def _run(self) -> None:
        """Connect. A dial that comes to nothing ends here, a line in `line_lost`."""
        try:
            await self._connect()
        except OSError as error:  # TimeoutError is one
            self._end(str(error) or type(error).__name__)
        except Exception as error:
            log.exception("the dial of a tracker failed; it is dialled again")
            self._end(repr(error))

    async def _connect(self) -> None:
        sock = await connected(parse_tracker_url(self.url))
        try:
            line, me = self._client.line(self, sock.getsockname()[0])
            self.line = line
            line.on_heard = lambda: self._client.happened(Heard(self.number))
            self._client.happened(Connected(self.number, me))
            protocol: asyncio.Protocol = line
            if (context := self._client.tls(self)) is not None:
                protocol = self.tls = TlsTransport(line, context, server_side=False)
            await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
        except BaseException:
            sock.close()
            raise
        self._stands = True

    def _dialled(self, task: asyncio.Task[None]) -> None:
        if not self._stands:
            self._end("the dial was given up")

    def _end(self, why: str) -> None:
        if self.ended.done():
            return
        why = self._why or why
        self.ended.set_result(why)
        retry_after_s = None if self.line is None else self.line.retry_after_s
        self._client.happened(LineLost(self.number, retry_after_s))
        self._client.lost(self, why)

    # --- called by the line ---------------------------------------------------------------------

    def line_up(self, line: ControlLine, session: Session) -> None:
        in_tls = self.tls is not None and not self.tls.in_clear
        self.renews = in_tls and bool(session.features & FEATURE_RENEW)
        self._client.happened(Greeted(self.number, session.member))

    def take(self, line: ControlLine, message: FromTracker) -> None:
        self._client.happened(Received(self.number, message))

    def line_lost(self, line: ControlLine, why: str) -> None:
        self._end(why)
