"""A release to a whole fleet, part of which misbehaves: what the tracker shows against the truth.

The driver knows of every host when it really was ready, and when it stopped to be; it asks the job
API for all hosts twice a second and compares.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.prewarm.content import make_content
from bench.prewarm.hosts import Conduct, Fleet, SimHost, fill
from bench.prewarm.tracker_process import LAG, TrackerProcess, running_tracker
from p2pdist.control.jobs_client import JobsClient, JobsError
from p2pdist.model.jobs import JobSpec, JobStatus
from p2pdist.model.members import Role
from p2pdist.process.daemon import raise_descriptor_limit
from p2pdist.process.operator_token import operator_token

DCS: Final = ("dc1", "dc2")
PROXIES_PER_DC: Final = 2
DIALS_AT_ONCE: Final = 512
WRONGED: Final = 0.05
SLOW: Final = 0.005
WAVES: Final = (0.01, 0.1, 1.0)
GATE: Final = 0.9
POLL_S: Final = 0.5
WITHDRAWN_WITHIN_S: Final = 5.0
# After this share of the hosts was ready, those that misbehave do so.
READY_SHARE: Final = 0.97
END_S: Final = 240.0
OBSERVED_S: Final = 3 * WITHDRAWN_WITHIN_S
READY: Final = frozenset({"ready", "unpacked"})
LATER: Final = (
    Conduct.WIPE,
    Conduct.EVICT,
    Conduct.LIE_WRONG,
    Conduct.LIE_SILENT,
    Conduct.VANISH,
)


@dataclass(slots=True)
class Watch:
    """What the job API showed, against what was true."""

    shown_s: dict[str, float] = field(default_factory=dict)
    """Host -> when it was shown ready first."""
    withdrawn_s: dict[str, float] = field(default_factory=dict)
    """Host -> when it was no longer shown ready, after it had stopped to be."""
    false_ready: set[str] = field(default_factory=set)
    polls: int = 0
    away: int = 0
    """Polls that the tracker did not answer."""

    def compare(self, asked_s: float, came_s: float, status: JobStatus, fleet: Fleet) -> None:
        """Take in one answer; what was asked for at `asked_s` may be no older than that."""
        self.polls += 1
        by_id: dict[str, SimHost] = {host.member.host_id: host for host in fleet.hosts}
        for shown in status.hosts:
            host = by_id[shown.host_id]
            ended_s = host.truth.ended_s
            if shown.state in READY:
                self.shown_s.setdefault(shown.host_id, came_s)
                if host.truth.proven_s is None:
                    self.false_ready.add(host.name)
                if ended_s is not None and asked_s > ended_s + WITHDRAWN_WITHIN_S:
                    self.false_ready.add(host.name)
            elif ended_s is not None and came_s > ended_s:
                self.withdrawn_s.setdefault(shown.host_id, came_s)

    def latencies_s(self, fleet: Fleet) -> list[float]:
        """From each change that a host says or shows at once (proven, lost a part, gone) to the
        first answer that shows it, sorted; infinite for what was never shown."""
        told = [
            self.shown_s.get(host.member.host_id, math.inf) - host.truth.proven_s
            for host in _peers(fleet)
            if host.truth.proven_s is not None
        ]
        told += [
            self.withdrawn_s.get(host.member.host_id, math.inf) - host.truth.ended_s
            for host in fleet.of(Conduct.WIPE, Conduct.EVICT, Conduct.VANISH)
            if host.truth.ended_s is not None
        ]
        return sorted(told)

    def withdrawals_s(self, fleet: Fleet) -> list[float]:
        """From a lie on to the first answer that does not believe it, sorted."""
        return sorted(
            self.withdrawn_s.get(host.member.host_id, math.inf) - host.truth.ended_s
            for host in fleet.of(Conduct.LIE_WRONG, Conduct.LIE_SILENT)
            if host.truth.ended_s is not None
        )


def _peers(fleet: Fleet) -> list[SimHost]:
    return [host for host in fleet.hosts if host.member.role is Role.PEER]


@dataclass(slots=True)
class Release:
    """One run: the tracker, its fleet and the job."""

    tracker: TrackerProcess
    fleet: Fleet
    client: JobsClient
    watch: Watch = field(default_factory=Watch)
    job: str = ""

    async def submit(self) -> float:
        """File the job; return the seconds that took."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        spec = JobSpec([self.fleet.content.image], waves=list(WAVES), wave_gate=GATE, note="bench")
        self.job = (await self.client.submit(spec)).id
        return loop.time() - began_s

    async def follow(self) -> None:
        """Compare until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            asked_s = loop.time()
            try:
                status = await self.client.show(self.job, hosts="all")
            except JobsError:
                self.watch.away += 1
            else:
                self.watch.compare(asked_s, loop.time(), status, self.fleet)
            await asyncio.sleep(max(0.0, asked_s + POLL_S - loop.time()))

    async def until_ready(self, share: float) -> None:
        """Return when so many hosts really are."""
        peers = _peers(self.fleet)
        async with asyncio.timeout(END_S):
            while sum(h.truth.proven_s is not None for h in peers) < share * len(peers):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def until_over(self) -> JobStatus:
        async with asyncio.timeout(END_S):
            while True:
                try:
                    status = await self.client.show(self.job, hosts="none")
                except JobsError:
                    await asyncio.sleep(1.0)
                    continue
                if status.ended_unix_s:
                    return await self.client.show(self.job, hosts="all")
                await asyncio.sleep(1.0)

    def wronged(self) -> set[str]:
        """Who must not be ready at the end."""
        return {h.name for h in self.fleet.hosts if _is_wronged(h)}


def _is_wronged(host: SimHost) -> bool:
    return host.conduct is Conduct.NO_SPACE or host.truth.ended_s is not None


@asynccontextmanager
async def release(
    count: int, seed: int, *, fetch_s: tuple[float, float], profile: Path | None = None
) -> AsyncIterator[Release]:
    """A tracker process and `count` connected hosts, for as long as the block lasts."""
    raise_descriptor_limit()
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as name:
        async with running_tracker(Path(name), profile=profile) as tracker:
            address = ("127.0.0.1", tracker.control_port)
            fleet = Fleet(*address, tracker.secret, make_content(rng), rng, fetch_s)
            fill(fleet, count=count, dcs=DCS, wronged=WRONGED, slow=SLOW, proxies=PROXIES_PER_DC)
            token = operator_token(tracker.secret)
            client = JobsClient(tracker.admin_url, token, tracker.session)
            try:
                await fleet.connect(at_once=DIALS_AT_ONCE)
                yield Release(tracker, fleet, client)
            finally:
                await fleet.close()


async def run(
    count: int,
    *,
    seed: int = 1,
    fetch_s: tuple[float, float] = (6.0, 12.0),
    kill: bool = False,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Take a release to `count` hosts; figures by name. `kill`: the tracker dies by SIGKILL when
    half of them are ready, and is started again 2 s later."""
    async with release(count, seed, fetch_s=fetch_s, profile=profile) as it:
        loop = asyncio.get_running_loop()
        cpu_s, lag_s = it.tracker.cpu_s(), (await it.tracker.metrics())[LAG]
        submit_s, began_s = await it.submit(), loop.time()
        following = it.fleet.tasks.start(it.follow(), name="follow")
        try:
            if kill:
                await it.until_ready(0.5)
                await it.tracker.kill()
                for host in it.fleet.hosts:  # nothing that was proven to the dead one counts
                    host.truth.proven_s = None
                it.watch.shown_s.clear()
                await asyncio.sleep(2.0)
                await it.tracker.start()
            await it.until_ready(READY_SHARE)
            ready_s = loop.time() - began_s
            misbehaved = it.fleet.misbehave(LATER)
            # The slow ones keep the job running, so that proofs go round as in a running job.
            await asyncio.sleep(OBSERVED_S)
            it.fleet.release_slow()
            status = await it.until_over()
            if following.done():
                following.result()  # it ends by an error alone
        finally:
            following.cancel()
        seconds = loop.time() - began_s
        metrics = await it.tracker.metrics()
        code, failed = await _command_says(it)
        latencies, withdrawals = it.watch.latencies_s(it.fleet), it.watch.withdrawals_s(it.fleet)
        not_ready = {host.name for host in status.hosts if host.state not in READY}
        return {
            "hosts": count,
            "hosts_missing": sum(host.line is None for host in it.fleet.hosts)
            - len(it.fleet.of(Conduct.VANISH)),
            "submit_s": submit_s,
            "ready_share_s": ready_s,
            "job_s": seconds,
            "job_state": status.state,
            "status_latency_p50_s": latencies[len(latencies) // 2],
            "status_latency_p99_s": latencies[int(len(latencies) * 0.99)],
            "misbehaved": misbehaved,
            "lie_seen_max_s": max(withdrawals, default=math.inf),
            "false_ready": len(it.watch.false_ready),
            "wronged": len(it.wronged()),
            "wrongly_not_ready": len(not_ready - it.wronged()),
            "wrongly_ready_at_the_end": len(it.wronged() - not_ready),
            "command_exit": code,
            "command_names_right_hosts": failed == it.wronged(),
            "polls": it.watch.polls,
            "polls_unanswered": it.watch.away,
            "tracker_cpu_s": it.tracker.cpu_s() - (0.0 if kill else cpu_s),
            "tracker_cpu_share": (it.tracker.cpu_s() - (0.0 if kill else cpu_s)) / seconds,
            "tracker_peak_rss_mb": it.tracker.rss_mb(),
            "lag_max_connecting_s": lag_s,
            "lag_max_s": metrics[LAG],
            "proofs": {
                result: int(metrics[f'p2pdist_prewarm_proofs_total{{result="{result}"}}'])
                for result in ("right", "wrong", "missing")
            },
            "connections_lost": dict(it.fleet.seen.lost),
        }


async def _command_says(it: Release) -> tuple[int, set[str]]:
    """Return how `p2pdist prewarm show --wait` exits, and the hosts that it calls failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "p2pdist.cli.main", "prewarm", "show", "--wait", it.job, "-o", "json",
        "--tracker", it.tracker.admin_url, "--secret-file", str(it.tracker.keys.secret_file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    said, _ = await process.communicate()
    report = json.loads(said)
    assert process.returncode is not None
    return process.returncode, {host["name"] for host in report["failed"]}
