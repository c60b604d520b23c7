from __future__ import annotations

import logging

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.oci.routes import BlobRoute, ManifestRoute
from p2pdist.registry.ports import PullContext
from p2pdist.registry.serving.pull import Outcome, Pull, log_pull

APP = ImageName("docker.io", "library/app")
DIGEST = digest_of(b"x")


def pull(**more: object) -> Pull:
    made = Pull(BlobRoute("app", DIGEST), APP, PullContext("id-1"), {})
    for key, value in more.items():
        setattr(made, key, value)
    return made


def test_a_record_says_what_the_request_waited_for() -> None:
    made = pull()
    made.context.waited("swarm", 0.5)
    made.context.waited("lease", 0.1)
    record = made.record(2.0)
    assert (record.slowest_cause, record.slowest_wait_s, record.duration_s) == ("swarm", 0.5, 2.0)


def test_a_record_is_of_its_time() -> None:
    made = pull()
    record = made.record(1.0)
    made.context.bytes_by_source["dc"] = 5
    assert record.bytes_by_source == {}


def test_a_record_names_manifests_by_the_reference_asked_for() -> None:
    made = Pull(ManifestRoute("app", "v1"), APP, PullContext("id-1"), {})
    assert (made.record(0).kind, made.record(0).reference) == ("manifest", "v1")


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        ("served", logging.INFO),
        ("refused", logging.INFO),
        ("failed", logging.INFO),
        ("client_gone", logging.INFO),
        ("client_stalled", logging.INFO),
        ("cut", logging.WARNING),
    ],
)
def test_one_line_a_request_and_a_warning_for_a_cut_one(
    caplog: pytest.LogCaptureFixture, outcome: Outcome, level: int
) -> None:
    caplog.set_level(logging.INFO)
    log_pull(pull(outcome=outcome).record(1.0))
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (level, "pull.ended")


def test_the_line_carries_what_an_operator_asks_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = pull(outcome="served", status=200, sent_bytes=7)
    made.context.bytes_by_source.update(rack=3, cache=4)
    log_pull(made.record(1.23456))
    fields = caplog.records[0].__dict__["fields"]
    assert fields["request"] == "id-1"
    assert (fields["status"], fields["sent_bytes"], fields["duration_s"]) == (200, 7, 1.235)
    assert fields["bytes_by_source"] == "cache:4,rack:3"
