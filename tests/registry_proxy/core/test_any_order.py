"""Whatever comes, in any order: what the proxy's small books keep agrees with itself."""

from __future__ import annotations

from random import Random

import pytest

from p2pdist.errors import RegistryError
from p2pdist.model.ids import digest_of, tag_key
from p2pdist.model.jobs import DcStatus, JobState, JobStatus
from p2pdist.oci.manifest import Descriptor, ManifestInfo
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core import replicas as replicas_module
from p2pdist.registry_proxy.core.replicas import Replica, Replicas
from p2pdist.registry_proxy.core.slots import FairSlots
from p2pdist.registry_proxy.core.tags import TagCache, TagEntry
from p2pdist.swarm.core.links import Links

SEEDS = pytest.mark.parametrize("seed", range(20))
STEPS = 300
DIGESTS = [digest_of(text) for text in (b"one", b"two", b"three")]
NAMES = [ImageName("a.test", "app"), ImageName("b.test", "app"), ImageName("b.test", "web")]


@SEEDS
def test_nobody_waits_for_a_slot_that_is_free(seed: int) -> None:
    rng = Random(seed)
    slots: FairSlots[tuple[str, int]] = FairSlots(4, {"c": 1})
    held: list[str] = []
    waiting: list[tuple[str, int]] = []
    for number in range(STEPS):
        match rng.choice(["take", "take", "release", "withdraw"]):
            case "take":
                upstream = rng.choice("abc")
                if slots.take(upstream):
                    held.append(upstream)
                else:
                    waiting.append((upstream, number))
                    slots.wait(upstream, waiting[-1])
            case "release" if held:
                for claim in slots.release(held.pop(rng.randrange(len(held)))):
                    waiting.remove(claim)
                    held.append(claim[0])
            case "withdraw" if waiting:
                claim = waiting.pop(rng.randrange(len(waiting)))
                assert slots.withdraw(claim[0], claim)
            case _:
                pass
        slots.validate()


@SEEDS
def test_a_claim_is_refuted_only_while_it_is_remembered(seed: int) -> None:
    rng, links = Random(seed), Links(links_max=2, names_max=2)
    for _ in range(STEPS):
        name, digest, size = rng.choice(NAMES), rng.choice(DIGESTS), rng.choice([10, 20])
        match rng.choice(["named", "told", "refuted", "delivered", "derived", "restarted"]):
            case "named":
                layer = Descriptor(digest, size, "application/x")
                links.link(name, ManifestInfo("image", "application/x", layers=(layer,)))
            case "told":
                links.tell(name, digest, size)
            case "refuted":
                links.refute(name, digest, size, None)
            case "delivered":
                links.delivered(name.upstream, digest)
            case "derived":
                links.derive(digest_of(b"index"), digest, size)
            case _:
                records = list(links.records())
                links = Links(links_max=2, names_max=2)
                links.restore(records)
        links.validate()


@SEEDS
def test_a_tag_is_known_or_refused(seed: int) -> None:
    rng, tags, now_s = Random(seed), TagCache(tags_max=2), 0.0
    for _ in range(STEPS):
        now_s += rng.choice([0.0, 4.0, 40.0])
        key = tag_key("a.test", "app", rng.choice("123"))
        entry = TagEntry(digest_of(b"m"), now_s, b"")
        match rng.choice(["confirmed", "refused", "unanswered", "recalled"]):
            case "confirmed":
                tags.confirmed(key, entry)
            case "refused":
                tags.refused(key, RegistryError(404, "MANIFEST_UNKNOWN", "none"), now_s)
            case "unanswered":
                tags.unanswered(key, "away", now_s)
            case _:
                tags.recall(key, entry)
        tags.validate()


RULES = [("one", ("dc1", "dc2")), ("all", ())]
STATES: list[JobState] = ["done", "done", "done", "running", "partly", "held"]


def some_reports(rng: Random) -> list[JobStatus]:
    reports = []
    for dc in rng.sample(["dc1", "dc2", "dc3"], rng.randrange(4)):
        state = rng.choice(STATES)
        ready = 2 if state == "done" else rng.randrange(3)
        told = DcStatus(dc, 2, ready, 0, 0, 2 - ready, 1, 0, 0.0, None)
        reports.append(JobStatus("j", state, [], [], 0, 0, 0, 0, False, 1, [1.0], [told]))
    return reports


@SEEDS
def test_what_is_in_step_is_behind_nowhere(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "REPLICAS_MAX", 3)
    rng, now_s = Random(seed), 1000.0
    replicas = Replicas(RULES, rng)
    rounds: list[tuple[Replica, int]] = []
    for _ in range(STEPS):
        now_s += rng.choice([0.0, 2.0, 400.0])
        match rng.choice(["heard", "taken", "looked", "looked"]):
            case "heard":
                replicas.heard(rng.choice(["one", "all"]), rng.choice("xy"), now_s)
            case "taken":
                rounds += [(each, each.generation) for each in replicas.take_due(now_s, 2)]
            case _ if rounds:
                one_round(replicas, *rounds.pop(0), rng, now_s)
            case _:
                pass
        replicas.validate()
        assert {(replica.rule, replica.image) for replica, _ in rounds} == replicas._busy


def one_round(
    replicas: Replicas, replica: Replica, generation: int, rng: Random, now_s: float
) -> None:
    """As the shell has it: the digest is looked up, the job submitted and looked at."""
    digest = rng.choice("vw")
    outcome = rng.choice(["settled", "settled", "settled", "unsure", "cancelled", "gone"])
    if outcome == "gone":
        replicas.forget(replica, generation)
    elif not replicas.resolved(replica, digest):
        replicas.stop(replica, generation)
    else:
        replica.jobs = {"http://tracker": f"job of {digest}"}
        if outcome == "cancelled":
            replicas.job_cancelled(replica, generation)
        sure = outcome == "settled"
        reports = some_reports(rng)
        replicas.settle(replica, generation, reports, submitted=sure, complete=sure, now_s=now_s)
