"""How requests ended, as Prometheus sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import refusal
from p2pdist.oci.routes import BlobRoute
from p2pdist.process.metrics import registry_of
from p2pdist.registry.ports import PullContext
from p2pdist.registry.serving.pull import Outcome, Pull, PullRecord, outcome_of
from p2pdist.registry.serving.pull_metrics import KINDS, OUTCOMES, PullMetrics
from tests.registry.serving.registry_lab import registry_lab

APP = ImageName("docker.io", "library/app")
DATA = b"some layer"


def record(outcome: Outcome = "served") -> PullRecord:
    pull = Pull(BlobRoute("app", digest_of(DATA)), APP, PullContext("id-1"), {}, outcome=outcome)
    return pull.record(0.3)


def counted(metrics: PullMetrics) -> dict[tuple[str, str], float]:
    """Requests that ended, by kind and outcome, without the zeros."""
    ended = [s for s in metrics.samples() if s.name == "p2pdist_pulls_total" and s.value]
    return {(s.labels["kind"], s.labels["outcome"]): s.value for s in ended}


def timed(metrics: PullMetrics) -> dict[tuple[str, ...], float]:
    """How many durations there are, by label values."""
    families = list(registry_of(durations=metrics.all()).collect())
    return {
        (family.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.endswith("_count")
    }


def test_every_outcome_is_there_from_the_start() -> None:
    samples = [s for s in PullMetrics(()).samples() if s.name == "p2pdist_pulls_total"]
    labels = [tuple(sample.labels.values()) for sample in samples]

    assert labels == [(kind, outcome) for kind in KINDS for outcome in OUTCOMES]


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_request_counts_under_its_outcome(outcome: Outcome) -> None:
    metrics = PullMetrics(())
    metrics.note(record(outcome))

    assert counted(metrics) == {("blob", outcome): 1}
    assert timed(metrics)["p2pdist_pull_duration_seconds", "blob", outcome] == 1


@pytest.mark.parametrize("no_pull", [replace(record(), head=True), replace(record(), status=304)])
def test_a_question_without_a_body_is_no_pull(no_pull: PullRecord) -> None:
    metrics = PullMetrics(())
    metrics.note(no_pull)

    assert counted(metrics) == {}
    assert set(timed(metrics).values()) == {0}


@pytest.mark.parametrize("reason", ErrorReason)
def test_what_is_not_there_is_refused_and_what_could_not_be_had_failed(reason: ErrorReason) -> None:
    lasting = {"unknown", "not_listed", "not_shared", "caller", "members_only", "denied"}

    assert outcome_of(refusal(reason, "docker.io", "x")) == (
        "refused" if reason in lasting else "failed"
    )


@pytest.mark.parametrize(
    ("status", "outcome"), [(416, "refused"), (404, "refused"), (503, "failed")]
)
def test_an_error_without_a_reason_goes_by_its_status(status: int, outcome: str) -> None:
    assert outcome_of(RegistryError(status, "UNKNOWN", "x")) == outcome


async def test_an_endpoint_tells_heads_from_pulls(tmp_path: Path) -> None:
    async with registry_lab(tmp_path) as lab:
        _, target = lab.seed_blob(DATA)
        await lab.get(target, method="HEAD")
        head = await lab.wait_record()
        await lab.get(target)
        got = await lab.wait_record()

    assert (head.head, got.head) == (True, False)
