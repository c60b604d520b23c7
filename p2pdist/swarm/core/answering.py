"""Which proxies hang: they take a question and say nothing, while one that died refuses at once.

There is one memory for all that is asked of a proxy. A question that has had no answer for as long
as one usually takes (RFC 6298, as in `patience`) raises a doubt, and a probe settles it, which a
proxy answers by itself: one that is busy with a slow registry is not taken for one that hangs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from p2pdist.swarm.core.patience import Patience

# A pull asks two or three questions before its first layer: a silent proxy may cost each so much.
USUAL_MIN_S: Final = 0.3
USUAL_MAX_S: Final = 1.0
HUNG_S: Final = 2.0
"""A probe without an answer for so long: far above what a proxy takes that serves a herd, and with
what was waited before it below the 5 s of silence of registry contract 3.7."""
PROBE_AGAIN_FIRST_S: Final = 0.5
PROBE_AGAIN_MAX_S: Final = 2.0


@dataclass(slots=True)
class _Proxy:
    patience: Patience = field(default_factory=Patience)
    heard_s: float = float("-inf")
    hung: bool = False
    probed_s: float | None = None
    """Since when the probe is out."""
    again_s: float = 0.0
    """No probe before."""
    pause_s: float = PROBE_AGAIN_FIRST_S


class AnswerBook:
    """Pure. Proxies go by their names in the configuration."""

    def __init__(self, names: Iterable[str]) -> None:
        self._proxies = {name: _Proxy() for name in names}

    # --- who hangs ------------------------------------------------------------------------------

    def hung(self, name: str) -> bool:
        return self._proxies[name].hung

    @property
    def hanging(self) -> list[str]:
        return [name for name, proxy in self._proxies.items() if proxy.hung]

    @property
    def all_hang(self) -> bool:
        return bool(self._proxies) and all(proxy.hung for proxy in self._proxies.values())

    def lives(self, name: str, since_s: float) -> bool:
        """It gave a sign of life at `since_s` or later."""
        return self._proxies[name].heard_s >= since_s

    # --- questions ------------------------------------------------------------------------------

    def usual_s(self, name: str) -> float:
        """How long to wait for an answer before another source is thought of."""
        return min(USUAL_MAX_S, max(USUAL_MIN_S, self._proxies[name].patience.wait_s))

    def answered(self, name: str, took_s: float, now_s: float) -> bool:
        """It answered a question, whatever it said; True: it hung until now."""
        self._proxies[name].patience.took(took_s)
        return self.heard(name, now_s)

    def heard(self, name: str, at_s: float) -> bool:
        """It gave a sign of life; True: it hung until now."""
        proxy = self._proxies[name]
        if at_s <= proxy.heard_s:
            return False
        proxy.heard_s = at_s
        hung, proxy.hung = proxy.hung, False
        if hung:
            proxy.pause_s = PROBE_AGAIN_FIRST_S
        return hung

    # --- probes ---------------------------------------------------------------------------------

    def doubt(self, name: str, now_s: float) -> bool:
        """Somebody waits for `name` longer than usual; True: it is to be probed now.

        A fleet that waits for one slow proxy must not become a herd of probes: the pauses grow as
        long as they all say that it is alive.
        """
        proxy = self._proxies[name]
        if proxy.probed_s is not None or now_s < proxy.again_s:
            return False
        proxy.probed_s = now_s
        return True

    def unanswered(self, name: str, now_s: float) -> bool:
        """The probe is not answered yet; True: it hangs from now on."""
        proxy = self._proxies[name]
        silent_since_s = max(proxy.heard_s, now_s if proxy.probed_s is None else proxy.probed_s)
        if proxy.hung or now_s - silent_since_s < HUNG_S:
            return False
        proxy.hung = True
        return True

    def next_pause_s(self, name: str) -> float:
        """How long to leave it alone now; longer each time, until it was heard after a hang."""
        proxy = self._proxies[name]
        pause_s, proxy.pause_s = proxy.pause_s, min(PROBE_AGAIN_MAX_S, 2 * proxy.pause_s)
        return pause_s

    def probe_over(self, name: str, now_s: float) -> None:
        """It is known whether it hangs."""
        self._proxies[name].probed_s = None
        self._proxies[name].again_s = now_s + self.next_pause_s(name)

    def gone(self, name: str) -> bool:
        """Nobody listens there: it is away, and known to be. True: it hung until now."""
        proxy = self._proxies[name]
        hung, proxy.hung = proxy.hung, False
        return hung
