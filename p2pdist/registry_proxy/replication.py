"""Carries the replication rules out: hears of pushes, polls, files jobs, follows them.

A push is a hint and nothing else: what counts is what the registry says of the tag when it is asked
anew. Each replica goes through the same round until it is in step: resolve, submit, look.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from random import Random
from typing import Final

from p2pdist.control.jobs_client import JobsClient, JobsError
from p2pdist.errors import RegistryError, StoreError
from p2pdist.model.ids import parse_digest
from p2pdist.model.jobs import RULE_KEY, JobImage, JobSpec, JobStatus
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import Reference
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.process.metrics import Sample
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.job_images import resolve_image
from p2pdist.registry.ports import Manifest
from p2pdist.registry_proxy.core.replicas import Replica, Replicas
from p2pdist.registry_proxy.core.rules import Pattern, Rule
from p2pdist.registry_proxy.manifests import ManifestService
from p2pdist.registry_proxy.replication_store import ReplicationStore

log = logging.getLogger(__name__)

ROUNDS_AT_ONCE: Final = 8
# A tag list beyond this is polled in part: 10 pages, each of which costs the registry a request.
POLL_PAGES_MAX: Final = 10
POLL_PAGE_TAGS: Final = 100
POLL_TAGS_MAX: Final = POLL_PAGES_MAX * POLL_PAGE_TAGS
# Jobs with the same key that were cancelled or have run out before ours.
KEY_TRIES_MAX: Final = 100


class Replication:
    """The rules of one proxy at work; `start` once, `close` at the end."""

    def __init__(
        self,
        rules: Sequence[Rule],
        manifests: ManifestService,
        store: ReplicationStore,
        trackers: Sequence[JobsClient],
        rng: Random,
    ) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self.replicas = Replicas([(rule.name, rule.dcs) for rule in rules], rng)
        self._manifests = manifests
        self._store = store
        self._trackers = {tracker.base_url: tracker for tracker in trackers}
        self._tasks = TaskOwner("replication")
        self._wake = asyncio.Event()
        self._running = 0
        self.results: Counter[tuple[str, str]] = Counter()

    async def start(self) -> None:
        """Take in what was left to do and go on with it. Raises StoreError."""
        foreign = self.replicas.restore(await self._store.open())
        await self._store.delete(foreign)
        self._tasks.start(self._work(), name="rounds")
        for rule in self.rules.values():
            if rule.poll_s > 0:
                self._tasks.start(self._poll(rule), name=f"poll {rule.name}")

    async def close(self) -> None:
        await self._tasks.close()
        await self._store.close()

    async def heard(self, pushes: Iterable[tuple[ImageName, str]]) -> tuple[int, bool]:
        """Queue the pushes that a rule wants; on return they survive a crash.

        Return how many were queued, and whether there was room for all. Raises StoreError.
        """
        changed, room = [], True
        for name, tag in pushes:
            for rule in self.rules.values():
                if rule.matches(name, tag):
                    replica = self.replicas.heard(rule.name, f"{name}:{tag}", unix_s())
                    room = room and replica is not None
                    changed += [replica] if replica is not None else []
        if changed:
            await self._stored(changed)
        return len(changed), room

    async def _stored(self, changed: Sequence[Replica]) -> None:
        self._wake.set()
        gone, self.replicas.pushed_out = self.replicas.pushed_out, []
        await self._store.delete(gone)
        await self._store.put(changed)

    def samples(self) -> Iterable[Sample]:
        yield Sample(
            "p2pdist_replication_queue", "gauge", "Images that wait for a job.",
            {}, self.replicas.queue_length(),
        )  # fmt: skip
        for rule in self.rules:
            for result in ("submitted", "failed"):
                yield Sample(
                    "p2pdist_replications_total", "counter", "Images given to trackers.",
                    {"rule": rule, "result": result}, self.results[rule, result],
                )  # fmt: skip
        for standing in self.replicas.standings(unix_s()):
            labels = {"rule": standing.rule, "dc": standing.dc}
            yield Sample(
                "p2pdist_replication_lag_seconds", "gauge",
                "Age of the oldest push that is not everywhere yet.", labels, standing.lag_s,
            )  # fmt: skip
            yield Sample(
                "p2pdist_replication_behind", "gauge", "Images not in step.",
                labels, standing.behind,
            )  # fmt: skip

    # --- rounds ---------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            now_s = unix_s()
            for replica in self.replicas.take_due(now_s, ROUNDS_AT_ONCE - self._running):
                self._running += 1
                self._tasks.start(self._guarded_round(replica), name=replica.image[:80])
            due_s = self.replicas.next_due_s()
            wait_s = None if due_s is None else max(0.05, min(60.0, due_s - unix_s()))
            if self._running >= ROUNDS_AT_ONCE:
                wait_s = None  # the end of a round wakes us
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _guarded_round(self, replica: Replica) -> None:
        generation = replica.generation
        try:
            await self._round(replica, generation)
        except StoreError as error:
            logs.event(log, logging.ERROR, "replication.not_stored", error=str(error))
        except BaseException:
            self._settle(replica, generation, [], submitted=False, complete=False)
            raise
        finally:
            self._running -= 1
            self._wake.set()

    async def _round(self, replica: Replica, generation: int) -> None:
        rule = self.rules[replica.rule]
        submitted = True
        if replica.state == "queued":
            if self.replicas.overdue(replica, unix_s()):
                return await self._give_up(replica, generation, "no success for a day")
            try:
                image = await resolve_image(_reference(replica.image), self._manifest)
            except (RegistryError, ValueError) as error:
                if isinstance(error, ValueError) or error.status == 404:
                    return await self._give_up(replica, generation, str(error))
                logs.event(
                    log, logging.WARNING, "replication.unresolved",
                    rule=rule.name, image=replica.image, error=str(error),
                )  # fmt: skip
                submitted = False
            else:
                if not self.replicas.resolved(replica, image.digest):
                    logs.event(
                        log, logging.WARNING, "replication.cancelled",
                        rule=rule.name, image=replica.image, digest=image.digest,
                    )  # fmt: skip
                    self.replicas.stop(replica, generation)
                    return await self._store.put([replica])
                submitted = await self._submit(rule, replica, image)
        await self._cancel_outdated(replica)
        reports, answered = await self._look(replica, generation)
        self._settle(
            replica,
            generation,
            reports,
            submitted=submitted and len(replica.jobs) == len(self._trackers),
            complete=answered,
        )
        await self._store.put([replica])
        return None

    def _settle(
        self,
        replica: Replica,
        generation: int,
        reports: Sequence[JobStatus],
        *,
        submitted: bool,
        complete: bool,
    ) -> None:
        self.replicas.settle(
            replica, generation, reports, submitted=submitted, complete=complete, now_s=unix_s()
        )

    async def _manifest(self, reference: Reference, target: str) -> Manifest:
        if ":" in target:
            return await self._manifests.by_digest(reference.name, parse_digest(target))
        return await self._manifests.fresh(reference.name, target)

    async def _give_up(self, replica: Replica, generation: int, why: str) -> None:
        self.results[replica.rule, "failed"] += 1
        logs.event(
            log, logging.WARNING, "replication.given_up",
            rule=replica.rule, image=replica.image, error=why,
        )  # fmt: skip
        if self.replicas.forget(replica, generation):
            await self._store.delete([replica])

    async def _submit(self, rule: Rule, replica: Replica, image: JobImage) -> bool:
        """Give the job to every tracker that has it not; whether all have it now."""
        fresh = False
        for url, tracker in self._trackers.items():
            if replica.jobs.get(url):
                continue
            try:
                replica.jobs[url] = await _submit_to(tracker, rule, image)
                fresh = True
            except JobsError as error:
                if error.code == "no_hosts":
                    replica.jobs[url] = ""
                    continue
                replica.jobs.pop(url, None)
                logs.event(
                    log, logging.WARNING, "replication.refused",
                    rule=rule.name, image=replica.image, tracker=url, error=str(error),
                )  # fmt: skip
        if len(replica.jobs) < len(self._trackers) or not any(replica.jobs.values()):
            return False
        if fresh:
            self.results[rule.name, "submitted"] += 1
            logs.event(
                log, logging.INFO, "replication.submitted",
                rule=rule.name, image=replica.image, digest=image.digest,
                jobs=",".join(filter(None, replica.jobs.values())),
            )  # fmt: skip
        return True

    async def _cancel_outdated(self, replica: Replica) -> None:
        """End the jobs of older digests where the newer one is on its way."""
        for url, job in list(replica.outdated):
            tracker = self._trackers.get(url)
            if tracker is not None and not replica.jobs.get(url):
                continue
            try:
                if tracker is not None:
                    await _cancel(tracker, job)
            except JobsError as error:
                if error.status == 0 or error.status >= 500:
                    continue
            replica.outdated.remove((url, job))

    async def _look(self, replica: Replica, generation: int) -> tuple[list[JobStatus], bool]:
        """How the jobs stand, and whether every tracker that has one said so."""
        reports, answered = [], True
        for url, job in list(replica.jobs.items()):
            tracker = self._trackers.get(url)
            if tracker is None:
                self.replicas.job_lost(replica, url)  # no longer in proxy.job_trackers
            elif job:
                try:
                    status = await tracker.show(job, hosts="none")
                    if status.state == "cancelled":
                        self.replicas.job_cancelled(replica, generation)
                        return [], False
                    if status.state == "partly":
                        await tracker.act(job, "retry")
                    reports.append(status)
                except JobsError as error:
                    answered = False
                    if error.status == 404:
                        self.replicas.job_lost(replica, url)
        return reports, answered

    # --- polling --------------------------------------------------------------------------------

    async def _poll(self, rule: Rule) -> None:
        while True:
            for pattern in rule.patterns:
                name = ImageName(pattern.upstream, pattern.repository)
                try:
                    await self._poll_pattern(rule, pattern, name)
                except (RegistryError, StoreError) as error:
                    logs.event(
                        log, logging.WARNING, "replication.poll_failed",
                        rule=rule.name, image=str(name), error=str(error),
                    )  # fmt: skip
            await asyncio.sleep(rule.poll_s)

    async def _poll_pattern(self, rule: Rule, pattern: Pattern, name: ImageName) -> None:
        for tag in await self._tags_of(pattern, name):
            digest = (await self._manifests.fresh(name, tag)).digest
            known = self.replicas.get(rule.name, f"{name}:{tag}")
            if known is not None and (known.state == "queued" or known.digest == digest):
                continue
            replica = self.replicas.heard(rule.name, f"{name}:{tag}", unix_s())
            if replica is not None:
                await self._stored([replica])

    async def _tags_of(self, pattern: Pattern, name: ImageName) -> list[str]:
        if "*" not in pattern.tag:
            return [pattern.tag]
        tags: list[str] = []
        query = f"n={POLL_PAGE_TAGS}"
        for _ in range(POLL_PAGES_MAX):
            page = await self._manifests.lists.tags(name, query)
            tags += page.tags
            if page.following is None:
                break
            query = page.following
        return [tag for tag in tags[:POLL_TAGS_MAX] if fnmatchcase(tag, pattern.tag)]


def _reference(image: str) -> Reference:
    """Of a replica's image: its host always comes first, whatever it looks like."""
    upstream, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    return Reference(ImageName(upstream, repository), tag, None)


async def _submit_to(tracker: JobsClient, rule: Rule, image: JobImage) -> str:
    """Return the id of a job for `image` that is under way or still holds. Raises JobsError.

    The key makes two proxies with the same rule file one job. A job of that key that was cancelled
    or whose pins are over does not help: a tag that moved there and back gets a new one.
    """
    for number in range(1, KEY_TRIES_MAX + 1):
        spec = job_spec(rule, image, number)
        answer = await tracker.submit(spec)
        if not answer.existing:
            return answer.id
        status = await tracker.show(answer.id, hosts="none")
        over_s = status.ended_unix_s
        if status.state != "cancelled" and not (over_s and over_s + rule.pin_s < unix_s()):
            return answer.id
    raise JobsError("too many jobs of one image", code="too_many")


async def _cancel(tracker: JobsClient, job: str) -> None:
    status = await tracker.show(job, hosts="none")
    if status.state in ("scheduled", "running", "held"):
        await tracker.act(job, "cancel")


def job_spec(rule: Rule, image: JobImage, number: int = 1) -> JobSpec:
    """The job of `rule` for `image`; `number` counts jobs that ask for the same."""
    wanted = (rule.name, str(image), image.digest, rule.hosts, *sorted(rule.dcs), rule.platform)
    figures = (rule.rate, rule.dc_rate, rule.pin_s, rule.priority)
    asked = hashlib.sha256(repr((wanted, figures)).encode()).hexdigest()[:32]
    return JobSpec(
        [image],
        hosts=rule.hosts or "*",
        dcs=list(rule.dcs),
        proxies_only=not rule.hosts,
        platform=rule.platform,
        rate=rule.rate,
        dc_rate=rule.dc_rate,
        priority=rule.priority,
        pin_s=rule.pin_s,
        key=f"{RULE_KEY}{rule.name} {asked} {number}",
        note=f"rule {rule.name}",
    )
