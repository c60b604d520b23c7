"""What each query of each board has to show at the end of the release, by legend.

Bytes come from the daemons' own counters, read when the queries are; the rest follows from the
script. A query, or a line of one, that is not here fails the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Final

from p2pdist.model.handshake import OTHER, REFUSALS
from p2pdist.model.health import Reason
from p2pdist.peer.daemon import RunningPeer
from p2pdist.process.http_protocol import dropped_total, malformed_total
from p2pdist.registry_proxy.core.notifications import KINDS
from p2pdist.registry_proxy.daemon import RunningProxy
from p2pdist.swarm.counters import FALLBACK_REASONS, RECEIVERS, SOURCES
from p2pdist.swarm.node import Node
from p2pdist.tracker.daemon import RunningTracker
from tests.e2e.dashboards import lazy
from tests.e2e.dashboards.release import DIRECT_BYTES, PULLS_LEFT, REFUSED, RUDE, RULE, Release

WINDOW_S: Final = 120.0
"""Longer than the release: every rate is what came, divided by this."""
RANGE_S: Final = 300.0

Range = tuple[float, float]
Key = tuple[str, str, str]
"""Board, title of the panel, query."""

NONE: Final[Range] = (0.0, 0.0)
# A scrape is up to a second old, and 0.1 MB/s flow meanwhile.
SLACK_BYTES: Final = 400_000.0
LOOP_S: Final[Range] = (0.0, 2.0)
CLOCK_S: Final[Range] = (-0.5, 0.5)
"""One machine's."""
FIRING: Final = {
    "P2pdistIntegrityFailures",
    "P2pdistUpstreamErrors",
    "P2pdistUpstreamRateLimited",
    "P2pdistNoTracker",
    "P2pdistIdentityEnds",
    "P2pdistPrewarmLate",
    "P2pdistPrewarmDeadlineMissed",
    "P2pdistHostsLie",
}
"""Their conditions hold at the end of the release; those of all others do not."""


def only(value: float) -> Range:
    return value, value


def some(value: float) -> Range:
    """A rate or increase, which Prometheus extrapolates to the ends of its window."""
    return 0.7 * value, 1.3 * value


def bytes_of(value: float) -> Range:
    return 0.95 * value - SLACK_BYTES, 1.05 * value + SLACK_BYTES


def flow(value: float) -> Range:
    """Bytes as a rate over the window."""
    low, high = bytes_of(value)
    return max(0.0, 0.9 * low) / WINDOW_S, 1.1 * high / WINDOW_S


def ratio(above: float, below: float) -> Range:
    return 0.85 * above / below, 1.15 * above / below


class Sums:
    """The nodes' counters, by datacenter."""

    def __init__(self, release: Release) -> None:
        self.by_dc: dict[str, Counter[str]] = {"dc1": Counter(), "dc2": Counter()}
        self.bulk: Counter[str] = Counter()
        for node, dc in _nodes(release):
            self.by_dc[dc].update(node.counters.received)
            self.bulk[dc] += node.core.bulk.received_bytes
        lonely = release.peers["lonely"].running.node.counters.received
        # It reports to no tracker.
        self.fleet = self.by_dc["dc1"] + self.by_dc["dc2"] - lonely

    def of(self, dc: str, *sources: str) -> float:
        return float(sum(self.by_dc[dc][source] for source in sources))

    def all(self, source: str) -> float:
        return self.of("dc1", source) + self.of("dc2", source)


def _nodes(release: Release) -> Iterable[tuple[Node, str]]:
    daemons: list[RunningProxy | RunningPeer] = [*release.proxies.values(), *release.peers.values()]
    for daemon in daemons:
        yield daemon.running.node, daemon.running.me().place.dc


def expected(release: Release) -> Mapping[Key, Mapping[str, Range]]:
    sums = Sums(release)
    boards = {
        "p2pdist-overview": {**_overview(sums), **_troubles(release)},
        "p2pdist-datacenters": {**_datacenters(sums), **_put_off(release)},
        "p2pdist-release": _release(release, sums),
        "p2pdist-host": _host(release),
        "p2pdist-upstreams": _upstreams(release, sums),
        "p2pdist-lazy": _lazy(release),
    }
    return {
        (uid, title, query): lines
        for uid, panels in boards.items()
        for (title, query), lines in panels.items()
    }


Panels = dict[tuple[str, str], Mapping[str, Range]]


def _overview(sums: Sums) -> Panels:
    spared = float(sum(sums.fleet[source] for source in ("rack", "dc", "wan")))
    outside = float(sums.fleet["upstream"])
    waits = {"blob": (1e-4, 60.0), "manifest": (1e-4, 60.0)}
    cached = {"hit": 45, "peer": 5, "dc": 13, "origin": 0}
    reasons = ("length", "map", "proto", "rot", "timeout")
    return {
        # Without `lonely`, and with the proxies.
        ("Hosts connected", "A"): {"": only(8)},
        ("Daemons scraped", "A"): {
            "peer": only(7),
            "proxy": only(2),
            "snapshotter": only(1),
            "tracker": only(2),
        },
        ("Not from a registry", "A"): {
            "": ratio(sums.fleet.total() - outside, float(sums.fleet.total()))
        },
        ("Spared the registries", "A"): {"": bytes_of(spared)},
        ("Hosts banned", "A"): {"": only(1)},
        ("Where bytes come from", "A"): {one: flow(sums.all(one)) for one in SOURCES},
        ("How long pulls take", "A"): {f"{kind} p50": at for kind, at in waits.items()},
        ("How long pulls take", "B"): {f"{kind} p99": at for kind, at in waits.items()},
        ("Requests by where they were met", "A"): {
            cache: (0.4 * count / WINDOW_S, 2 * (count + 1) / WINDOW_S)
            for cache, count in cached.items()
        },
        ("Wrong chunks", "A"): {
            "hash": (0.5 / WINDOW_S, 5 / WINDOW_S),
            **dict.fromkeys(reasons, NONE),
        },
        ("Event loops", "A"): dict.fromkeys(("peer", "proxy", "snapshotter", "tracker"), LOOP_S),
    }


def _troubles(release: Release) -> Panels:
    books = [node.health.book for node, _ in _nodes(release)]
    books += [tracker.server.health.book for tracker in _trackers(release)]
    hangs: Counter[str] = Counter()
    for node, dc in _nodes(release):
        hangs[dc] += node.proxy_links.answering.hangs_total
    # One process has them all, so that each of the daemons exports the count of all.
    malformed = {
        f"malformed {reason}": some(len(release.targets) * count / WINDOW_S)
        for reason, count in {**dict.fromkeys(malformed_total, 0), "request_line": RUDE}.items()
    }
    return {
        ("Degraded", "A"): {
            reason.value: only(float(sum(book.active(reason) for book in books)))
            for reason in Reason
        },
        ("Proxies that hang", "A"): {dc: some(hangs[dc]) for dc in ("dc1", "dc2")},
        ("Pulls cut", "A"): {
            f"{dc} {kind}": NONE
            for dc, kind in product(("dc1", "dc2"), ("blob", "manifest", "part"))
        },
        ("Bytes saved", "A"): {"saved": flow(release.delivered_bytes - DIRECT_BYTES)},
        ("Bytes saved", "B"): {"from a registry": flow(DIRECT_BYTES)},
        ("Rude clients", "A"): dict.fromkeys(dropped_total, NONE),
        ("Rude clients", "B"): malformed,
    }


def _put_off(release: Release) -> Panels:
    shown: dict[str, dict[str, Range]] = {"A": {}, "B": {}, "C": {}}
    for dc, tracker in release.trackers.items():
        intake = tracker.server.reception.intake
        shown["A"][f"{dc} later"] = some(intake.sent_away_total / WINDOW_S)
        shown["B"][f"{dc} dropped"] = some(intake.dropped_total / WINDOW_S)
        shown["C"][f"{dc} refused"] = NONE
    return {("Put off by trackers", at): lines for at, lines in shown.items()}


def _datacenters(sums: Sums) -> Panels:
    dcs = ("dc1", "dc2")
    within = ("rack", "dc", "proxy")
    nothing: dict[str, Range] = {f"{RULE.name} {dc}": NONE for dc in dcs}
    return {
        ("Into each datacenter from others", "A"): {dc: flow(sums.of(dc, "wan")) for dc in dcs},
        ("Into each datacenter from registries", "A"): {
            dc: flow(sums.of(dc, "upstream")) for dc in dcs
        },
        ("Copies from outside", "A"): {
            dc: ratio(sums.of(dc, "wan", "upstream"), sums.of(dc, *within)) for dc in dcs
        },
        ("Exchanged within", "A"): {dc: flow(sums.of(dc, "rack", "dc")) for dc in dcs},
        ("Hosts by datacenter", "A"): {"dc1": only(5), "dc2": only(3)},
        ("Trackers reached", "A"): dict.fromkeys(dcs, only(1)),
        ("Leases", "A"): dict.fromkeys(dcs, (0.0, 4.0)),
        ("Behind by", "A"): nothing,
        ("Images behind", "A"): nothing,
    }


def _release(release: Release, sums: Sums) -> Panels:
    jobs, dcs = release.jobs, ("dc1", "dc2")
    here, there, slow, small = (jobs[name] for name in ("app dc1", "app dc2", "slow", "small"))
    done = {here: only(1), there: only(1), slow: NONE, small: NONE}
    states = {"fetching": 2, "ready": 4, "failed": 1, "waiting": 0, "unpacked": 0, "lost": 0}
    missing = sum(
        job.tallies["dc1"].missing_bytes
        for job in release.trackers["dc1"].server.core.jobs.jobs.values()
    )
    counts = release.trackers["dc1"].server.core.jobs.counters
    proofs = {
        "right": sum(t.server.core.jobs.counters.proofs_right_total for t in _trackers(release)),
        "wrong": counts.proofs_wrong_total,
        "missing": 0,
    }
    others = ("held", "scheduled", "cancelled")
    return {
        ("Ready", "A"): done,
        ("Failed or lost", "A"): {**dict.fromkeys((here, there, slow), NONE), small: only(1)},
        ("Time to go", "A"): {here: NONE, there: NONE, slow: (1.0, 3600.0)},
        ("Until the deadline", "A"): {slow: (-60.0, 0.0)},
        ("Hosts by state", "A"): {state: only(count) for state, count in states.items()},
        ("Ready by datacenter", "A"): {
            f"dc1 {here}": only(1),
            f"dc2 {there}": only(1),
            f"dc1 {slow}": NONE,
            f"dc1 {small}": NONE,
        },
        ("Missing", "A"): {"dc1": bytes_of(missing), "dc2": NONE},
        ("Fetched ahead of need", "A"): {dc: flow(sums.bulk[dc]) for dc in dcs},
        ("Held back for pulls", "A"): dict.fromkeys(dcs, (0.0, 0.2)),
        ("Proofs", "A"): {result: some(count / WINDOW_S) for result, count in proofs.items()},
        ("Withdrawn", "A"): {"": some(1)},
        ("Deadlines missed", "A"): {"": some(1)},
        ("Jobs", "A"): {
            "done": only(2),
            "partly": only(1),
            "running": only(1),
            **dict.fromkeys(others, NONE),
        },
    }


def _trackers(release: Release) -> Iterable[RunningTracker]:
    return release.trackers.values()


def _host(release: Release) -> Panels:
    """`web-1`."""
    running = release.peers["web-1"].running
    counters, wasted = running.node.counters, float(running.node.counters.wasted_bytes)
    totals = running.node.fetch_totals()
    plain: Panels = {
        ("Second tries", "A"): {"": some(totals.hedges / WINDOW_S)},
        ("Second tries", "B"): {"": some(totals.stalls / WINDOW_S)},
        ("Second tries", "C"): {"": some(totals.escapes / WINDOW_S)},
        ("Second tries", "D"): {"": some(totals.steals / WINDOW_S)},
    }
    legends = {"A": "hedges", "B": "stalls", "C": "escapes", "D": "steals"}
    usage = running.store.usage()
    refused = {"us": running.transport.refused, "others": running.node.neighbourhood.refused_by}
    return {
        **{(title, at): {legends[at]: lines[""]} for (title, at), lines in plain.items()},
        ("Received", "A"): {one: flow(counters.received[one]) for one in SOURCES},
        ("Sent", "A"): {one: flow(counters.sent[one]) for one in RECEIVERS},
        ("Store", "A"): {"held": bytes_of(usage.bytes_used)},
        ("Store", "B"): {"pinned": bytes_of(running.store.pinned_bytes())},
        ("Store", "C"): {"aside": only(float(usage.aside_bytes))},
        ("Open files", "A"): {"": (0.5 * usage.open_files, 2.0 * usage.open_files)},
        ("Links refused", "A"): {
            f"{by} {reason}": some(counts[reason] / WINDOW_S)
            for by, counts in refused.items()
            for reason in (*REFUSALS, OTHER)
        },
        ("Links", "A"): {"nodes": (1.0, 6.0)},
        ("Links", "B"): {"tracker": only(1)},
        ("Longest wait of a pull", "A"): {"blob": (1e-4, 30.0), "manifest": (1e-4, 30.0)},
        ("For nothing", "A"): {"": (0.5 * wasted / WINDOW_S, 1.5 * wasted / WINDOW_S)},
        # Those of its job were over with the job.
        ("Prewarm orders", "A"): {"fetching": NONE, "fetched": (0.0, 1.0), "failed": NONE},
        ("Event loop", "A"): {"": LOOP_S},
        ("Evicted", "A"): {"": NONE},
        ("Disk full", "A"): {"": NONE},
        ("Past the swarm", "A"): {
            reason: flow(counters.fallback_reasons[reason]) for reason in FALLBACK_REASONS
        },
        ("Degraded", "A"): {
            reason.value: only(float(running.node.health.book.active(reason))) for reason in Reason
        },
        ("Clock", "A"): {"tracker": CLOCK_S, "proxy": CLOCK_S},
    }


def _upstreams(release: Release, sums: Sums) -> Panels:
    counted: Counter[str] = Counter()
    payload = 0
    for proxy in release.proxies.values():
        payload += proxy.upstream.counters.payload_bytes["docker.io"]
        for (_, code), number in proxy.upstream.counters.requests.items():
            counted[code] += number
    assert counted["5xx"] >= REFUSED
    assert release.registry.payload_total <= payload
    told = {f"{kind} {result}": NONE for kind, result in product(KINDS, ("ignored", "refused"))}
    told |= {f"{kind} queued": NONE for kind in KINDS}
    return {
        ("Answers", "A"): {
            f"docker.io {code}": some(counted[code] / WINDOW_S)
            for code in ("2xx", "4xx", "429", "5xx", "none")
        },
        ("Errors", "A"): {"docker.io": ratio(counted["5xx"], counted.total())},
        ("Read", "A"): {"docker.io": flow(payload)},
        ("Pulls left", "A"): {"docker.io": only(PULLS_LEFT)},
        ("Given to the local side for each byte read", "A"): {
            "": ratio(float(sums.fleet.total()), payload)
        },
        ("Notifications", "A"): {**told, "distribution queued": some(1 / WINDOW_S)},
        ("Waiting for a job", "A"): {"": NONE},
        ("Given to trackers", "A"): {
            f"{RULE.name} submitted": some(1 / WINDOW_S),
            f"{RULE.name} failed": NONE,
        },
        ("Chunk maps taken back", "A"): dict.fromkeys(("dc1", "dc2"), NONE),
        # Random bytes are no archives; how many proxies look at each of a handful is theirs to say.
        ("Layers indexed", "A"): {
            **dict.fromkeys(("built", "failed", "skipped"), NONE),
            "unfit": (0.5 / WINDOW_S, 20 / WINDOW_S),
        },
        ("Bytes of indexes", "A"): {"layer": NONE, "index": NONE},
        ("Names that did not resolve", "A"): dict.fromkeys(("dc1", "dc2"), NONE),
    }


def _lazy(release: Release) -> Panels:
    size = float(len(lazy.BLOB))
    waits = (1e-4, 0.01)
    return {
        ("Reads that wait longest", "A"): {release.lazy.admin: NONE},
        ("How long reads wait", "A"): {"p50": waits},
        ("How long reads wait", "B"): {"p99": waits},
        ("Reads that failed", "A"): {"": NONE},
        ("Reads", "A"): {
            outcome.name.lower(): some(count / WINDOW_S) for outcome, count in lazy.READS.items()
        },
        ("Images asked for", "A"): dict.fromkeys(("lazy", "declined"), NONE),
        ("Read and fetched", "A"): {"read": some(lazy.READ_BYTES / WINDOW_S)},
        ("Read and fetched", "B"): {
            f"fetched: {why.name.lower()}": some(nbytes / WINDOW_S)
            for why, nbytes in lazy.FETCHED_BYTES.items()
        },
        ("Where layers are", "A"): {
            "elsewhere": only(size),
            "here": NONE,
            "files": only(size),
        },
    }
