"""What is kept of jobs: read back as it was, by later versions too."""

from __future__ import annotations

import msgspec

from p2pdist.model.jobs import JobSpec
from p2pdist.tracker.core.jobs.records import Changes, StoredJob, StoredTarget
from tests.tracker.core.jobs.fleet import image

JOB = StoredJob("job", JobSpec([image()]), "held", 1.0, reason="a gate")
TARGET = StoredTarget("h1", "web-1", "dc1", "linux/amd64", 2, tries=3, final=True, code="denied")


def test_what_is_written_is_read_back() -> None:
    for record in (JOB, TARGET):
        assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


def test_what_an_older_version_wrote_is_read() -> None:
    """Fields come at the end, with a default."""
    written = ["h1", "web-1", "dc1", "linux/amd64", 2]
    plain = StoredTarget("h1", "web-1", "dc1", "linux/amd64", 2)
    assert msgspec.convert(written, StoredTarget) == plain

    job = {"id": "job", "spec": msgspec.to_builtins(JOB.spec), "state": "done", "created_unix_s": 1}
    assert msgspec.convert(job, StoredJob).dcs == []


def test_a_transaction_with_nothing_to_write_is_none() -> None:
    assert not Changes()
    assert Changes(jobs=[JOB])
    assert Changes(targets=[("job", TARGET)])
    assert Changes(deleted=["job"])
    assert Changes(hosts_dropped=["job"])
