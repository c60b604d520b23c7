"""What keeps a daemon from working as it should while it goes on serving: the named reasons, what
to do about each, and when one begins and ends. `/readyz`, metrics, the log, `p2pdist status` and
`p2pdist doctor` all read it from here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2pdist.model.proved_addresses import FIX


class Reason(enum.StrEnum):
    """Values are label values of `p2pdist_degraded` and entries of `/readyz`."""

    STORE_FULL = "store_full"
    STORE_FAILED = "store_failed"
    PROXIES_REFUSE = "proxies_refuse"
    NO_PROXY_LINK = "no_proxy_link"
    PROXY_HUNG = "proxy_hung"
    WRONG_SECRET = "wrong_secret"  # noqa: S105  # a name, no secret
    WRONG_KEY = "wrong_proxy_key"
    CLOCK_SKEW = "clock_skew"
    TRACKER_AWAY = "tracker_away"
    FALLBACK_USED = "fallback_used"
    UNREACHABLE = "unreachable"
    ADDRESS_REFUSED = "address_refused"
    FEW_DESCRIPTORS = "few_descriptors"
    STRANGERS = "strangers"
    HOST_CLONED = "host_cloned"
    IDENTITY_REFUSED = "identity_refused"
    IDENTITY_ENDS = "identity_ends"
    IDENTITY_UNREAD = "identity_unread"
    IDENTITY_REVOKED = "identity_revoked"
    SECRET_UNREAD = "secret_unread"  # noqa: S105  # a name, no secret
    PROXY_KEYS_UNREAD = "proxy_keys_unread"
    SIGNING_KEY_UNREAD = "signing_key_unread"
    LAYERS_UNSHOWN = "layers_unshown"
    READS_WAIT = "reads_wait"


@dataclass(frozen=True, slots=True)
class Rule:
    """`begin_s`: how long a condition holds before it is one; `end_s`: how long it has not held
    before it is over. An event counts as holding for `event_s`, unless it is mended before."""

    fix: str
    begin_s: float = 0.0
    end_s: float = 0.0
    event_s: float = 600.0


# Longer than the ban of a proxy whose statements are not believed: it is asked again only then.
_BAN_OUTLIVED_S: Final = 900.0

RULES: Final[Mapping[Reason, Rule]] = {
    Reason.STORE_FULL: Rule("free disk space below host.state_dir, or set store.max_bytes lower"),
    Reason.STORE_FAILED: Rule("the disk below host.state_dir takes no writes: mount, quota, dmesg"),
    Reason.PROXIES_REFUSE: Rule("more hosts than links: raise proxy.links_max, or add a proxy"),
    Reason.NO_PROXY_LINK: Rule(
        "is the proxy running, and does the firewall let its proxy.exchange_listen through?"
    ),
    Reason.PROXY_HUNG: Rule(
        "that proxy takes connections and answers nothing: look at its machine (memory, disk,"
        " suspended), restart it"
    ),
    Reason.WRONG_SECRET: Rule(
        "give this host and the others the same file as cluster.secret_file: it is taken up without"
        " a restart",
        event_s=_BAN_OUTLIVED_S,
    ),
    Reason.WRONG_KEY: Rule(
        "add the proxy's public key to cluster.proxy_keys_file of this host, which is taken up"
        " without a restart; or to cluster.proxy_keys, then restart it",
        event_s=_BAN_OUTLIVED_S,
    ),
    Reason.CLOCK_SKEW: Rule("let the clocks follow one source (chrony, systemd-timesyncd)"),
    # A tracker that restarts is back by then.
    Reason.TRACKER_AWAY: Rule(
        "is the tracker running, and does the firewall let its port through?", begin_s=10.0
    ),
    Reason.FALLBACK_USED: Rule(
        "p2pdist_fallback_bytes_total says why; see P2pdistFallbackUsed in docs/operations.md",
        event_s=300.0,
    ),
    Reason.UNREACHABLE: Rule("set host.advertise to an address that other hosts reach"),
    Reason.ADDRESS_REFUSED: Rule(FIX),
    Reason.FEW_DESCRIPTORS: Rule("LimitNOFILE=1048576 in the unit, or ulimit -n", end_s=60.0),
    Reason.STRANGERS: Rule(
        "give those hosts the cluster.secret_file of this one; or a firewall, if they are none of"
        " yours",
    ),
    Reason.HOST_CLONED: Rule(
        "it took a new host id; remove host.state_dir from the image that machines are made from;"
        " where both show one certificate: `p2pdist ca issue` for each of them"
    ),
    Reason.IDENTITY_REFUSED: Rule(
        "`p2pdist ca show cert.pem` on both hosts: role, end, issuer; then issue anew what is"
        " wrong; it is taken up without a restart",
        event_s=_BAN_OUTLIVED_S,
    ),
    Reason.IDENTITY_ENDS: Rule(
        "`p2pdist ca issue` for this host, where the CA is, and copy the files to its identity_dir:"
        " they are taken up without a restart; `p2pdist doctor` says why nobody renews it"
    ),
    Reason.IDENTITY_UNREAD: Rule(
        "`p2pdist ca show cert.pem` in identity_dir; then issue all three files anew; or copy"
        " revoked.list there again"
    ),
    Reason.IDENTITY_REVOKED: Rule(
        "if that was right, set the host up anew; if not, give it another id: `p2pdist ca issue`"
        " into an empty directory, copy the files to its identity_dir, and restart it"
    ),
    Reason.SECRET_UNREAD: Rule(
        "copy cluster.secret_file from a host that is well: one or two lines, for its owner only"
    ),
    Reason.PROXY_KEYS_UNREAD: Rule(
        "copy cluster.proxy_keys_file from a host that is well: a public key a line, for its owner"
        " only to change"
    ),
    Reason.SIGNING_KEY_UNREAD: Rule(
        "its proxy.pub to cluster.proxy_keys_file of all hosts first; or put the key that was there"
        " before back as proxy.key_file"
    ),
    # A worker that was killed is back within a second.
    Reason.LAYERS_UNSHOWN: Rule(
        "containers that read layers there are broken: start them again; mnt.log in the"
        " snapshotter's directory says what ended",
        begin_s=5.0,
    ),
    Reason.READS_WAIT: Rule(
        "containers stand still: does the peer of this host run, and reach other hosts or a"
        " proxy? After a minute their reads fail",
    ),
}

SAY_PAUSE_S: Final = 60.0
"""What comes and goes is said no more often."""
SAY_AGAIN_S: Final = 3600.0
"""What lasts is said again, so that the log of any hour tells it."""
EVENTS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Trouble:
    """A reason that holds now."""

    reason: Reason
    detail: str
    since_s: float

    @property
    def fix(self) -> str:
        return RULES[self.reason].fix


@dataclass(frozen=True, slots=True)
class Word:
    """Something to be said about a reason: it is there (again or still), or it is over."""

    trouble: Trouble
    over: bool


@dataclass(slots=True)
class _State:
    held_since_s: float | None = None
    held_last_s: float = 0.0
    detail: str = ""
    active_since_s: float | None = None
    said_s: float | None = None
    told: bool = False
    """Its beginning was said, so its end will be."""


class HealthBook:
    """Pure. Conditions are looked at, events happen to a party and last until they are mended."""

    def __init__(self) -> None:
        self._states = {reason: _State() for reason in Reason}
        self._events: dict[tuple[Reason, str], tuple[float, str]] = {}

    def happened(self, reason: Reason, party: str, detail: str, now_s: float) -> None:
        """Something went wrong with `party`; when there are too many, the oldest is forgotten."""
        self._events.pop((reason, party), None)
        self._events[reason, party] = now_s + RULES[reason].event_s, detail
        while len(self._events) > EVENTS_MAX:
            del self._events[next(iter(self._events))]

    def mended(self, reason: Reason, party: str) -> None:
        """The same thing went well with `party`."""
        self._events.pop((reason, party), None)

    def look(self, conditions: Mapping[Reason, str], now_s: float) -> list[Word]:
        """Take in which conditions hold now, each with its detail; return what is to be said."""
        holding = self._live_events(now_s) | dict(conditions)
        words = []
        for reason in Reason:
            word = self._turn(reason, holding.get(reason), now_s)
            if word is not None:
                words.append(word)
        return words

    def troubles(self) -> list[Trouble]:
        """The reasons that held at the last look."""
        return [
            Trouble(reason, state.detail, state.active_since_s)
            for reason, state in self._states.items()
            if state.active_since_s is not None
        ]

    def active(self, reason: Reason) -> bool:
        return self._states[reason].active_since_s is not None

    def _live_events(self, now_s: float) -> dict[Reason, str]:
        for key in [key for key, (until_s, _) in self._events.items() if until_s <= now_s]:
            del self._events[key]
        return {reason: detail for (reason, _), (_, detail) in self._events.items()}

    def _turn(self, reason: Reason, detail: str | None, now_s: float) -> Word | None:
        state, rule = self._states[reason], RULES[reason]
        if detail is None:
            state.held_since_s = None
            if state.active_since_s is None or now_s - state.held_last_s < rule.end_s:
                return None
            trouble = Trouble(reason, state.detail, state.active_since_s)
            state.active_since_s = None
            told, state.told = state.told, False
            return Word(trouble, over=True) if told else None
        if state.held_since_s is None:
            state.held_since_s = now_s
        state.held_last_s, state.detail = now_s, detail
        if state.active_since_s is None:
            if now_s - state.held_since_s < rule.begin_s:
                return None
            state.active_since_s = state.held_since_s
        pause_s = SAY_AGAIN_S if state.told else SAY_PAUSE_S
        if state.said_s is not None and now_s - state.said_s < pause_s:
            return None
        state.said_s, state.told = now_s, True
        return Word(Trouble(reason, detail, state.active_since_s), over=False)
