"""Where an image stands, read off jobs."""

from __future__ import annotations

from p2pdist.cli.prewarming.standing import standings
from p2pdist.model.jobs import DcStatus, JobState, JobStatus

IMAGE = "docker.io/library/app:1"
OLD, NEW = "sha256:old", "sha256:new"


def job(
    digest: str, created_s: float, ready: int, state: JobState = "running", dc: str = "dc1"
) -> JobStatus:
    row = DcStatus(dc, 2, ready, 0, 0, 2 - ready, 1, 0, 0.0, None, 1, 1)
    return JobStatus(
        "id", state, [IMAGE], [digest], created_s, 0.0, 0.0, 0.0, False, 1, [1.0], [row]
    )


def test_a_datacenter_that_has_what_the_registry_has_is_in_step() -> None:
    (row,) = standings(IMAGE, NEW, [job(OLD, 1.0, 2), job(NEW, 5.0, 2, "done")], 100.0)

    assert (row.dc, row.state, row.digest, row.lag_s) == ("dc1", "in step", NEW, 0.0)
    assert (row.hosts_ready, row.hosts, row.proxies_ready) == (2, 2, 1)


def test_what_comes_lags_by_the_age_of_its_job() -> None:
    (row,) = standings(IMAGE, NEW, [job(NEW, 90.0, 1), job(OLD, 1.0, 2, "done")], 100.0)

    assert (row.state, row.digest, row.lag_s) == ("coming", OLD, 10.0)
    assert (row.hosts_ready, row.hosts) == (1, 2)


def test_without_a_job_for_it_a_datacenter_is_behind() -> None:
    (row,) = standings(IMAGE, NEW, [job(OLD, 1.0, 2, "done")], 100.0)

    assert (row.state, row.digest, row.lag_s) == ("behind", OLD, None)


def test_the_newest_job_of_a_digest_counts() -> None:
    (row,) = standings(IMAGE, NEW, [job(NEW, 9.0, 2, "done"), job(NEW, 5.0, 0, "partly")], 100.0)

    assert row.state == "in step"


def test_failed_and_cancelled_jobs_are_told_apart() -> None:
    jobs = [job(NEW, 1.0, 1, "partly"), job(NEW, 1.0, 1, "cancelled", "dc2")]

    assert [row.state for row in standings(IMAGE, NEW, jobs, 9.0)] == ["failed", "cancelled"]


def test_other_images_do_not_count() -> None:
    assert standings("docker.io/library/other:1", NEW, [job(NEW, 1.0, 2)], 9.0) == []
