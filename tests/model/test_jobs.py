"""Jobs as JSON: bounded, and shown as people name images."""

from __future__ import annotations

import msgspec
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.model.jobs import (
    IMAGES_MAX,
    PIN_MAX_S,
    WAVES_MAX,
    Blob,
    JobImage,
    JobRequest,
    JobSpec,
    PlatformImage,
)

DIGEST = digest_of(b"manifest")
IMAGE = JobImage(
    "ghcr.io", "team/app", "1.2", DIGEST, [PlatformImage("", [DIGEST], [Blob(DIGEST, 1)])]
)


def test_an_image_is_shown_by_its_tag_or_else_by_its_digest() -> None:
    assert str(IMAGE) == "ghcr.io/team/app:1.2"
    assert str(msgspec.structs.replace(IMAGE, tag="")) == f"ghcr.io/team/app@{DIGEST}"


def test_a_request_comes_back_as_it_was_sent() -> None:
    asked = JobRequest(JobSpec([IMAGE], hosts="web-*", waves=[0.1, 1.0], rate=1), dry_run=True)

    assert msgspec.json.decode(msgspec.json.encode(asked), type=JobRequest) == asked


def test_two_jobs_share_no_waves() -> None:
    one, other = JobSpec([IMAGE]), JobSpec([IMAGE])

    assert one.waves == [1.0]
    assert one.waves is not other.waves


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": []},
        {"images": [IMAGE] * (IMAGES_MAX + 1)},
        {"images": [msgspec.structs.replace(IMAGE, platforms=[])]},
        {"images": [msgspec.structs.replace(IMAGE, repository="a" * 256)]},
        {"hosts": "x" * 4097},
        {"waves": []},
        {"waves": [0.0, 1.0]},
        {"waves": [1.1]},
        {"waves": [1.0] * (WAVES_MAX + 1)},
        {"wave_gate": 1.01},
        {"rate": -1},
        {"at_unix_s": -1.0},
        {"priority": 101},
        {"pin_s": PIN_MAX_S + 1},
    ],
)
def test_what_is_beyond_its_bounds_is_refused(wrong: dict[str, object]) -> None:
    body = msgspec.json.encode({"images": [IMAGE], **wrong})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=JobSpec)
