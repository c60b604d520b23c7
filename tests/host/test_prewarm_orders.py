"""Orders that make no sense are refused before a name of theirs reaches a request or a runtime."""

from __future__ import annotations

import msgspec
import pytest

from p2pdist.errors import ErrorReason
from p2pdist.host.prewarming import OrderRefused, check_order, explain
from p2pdist.model.control import BlobRef, Prewarm, PrewarmImage
from p2pdist.model.ids import digest_of
from p2pdist.oci.refusals import blob_refusal

DIGEST = digest_of(b"x")
IMAGE = PrewarmImage("docker.io", "library/app", "1", [DIGEST], [BlobRef(DIGEST, 5)])


def test_an_order_for_a_tag_and_one_for_a_digest_are_taken() -> None:
    check_order(Prewarm("job", [IMAGE, msgspec.structs.replace(IMAGE, tag="")]))


@pytest.mark.parametrize(
    "changed",
    [
        {"upstream": "--config=/etc/x"},
        {"upstream": ""},
        {"upstream": "a/../b"},
        {"upstream": "INDEX.docker.io"},
        {"repository": "../../etc"},
        {"repository": "App"},
        {"repository": ""},
        {"tag": "-x"},
        {"tag": "a b"},
        {"manifests": []},
        {"manifests": ["sha256:short"]},
        {"blobs": [BlobRef("md5:x", 1)]},
    ],
    ids=str,
)
def test_an_order_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(OrderRefused, match="makes no sense"):
        check_order(Prewarm("job", [msgspec.structs.replace(IMAGE, **changed)]))


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (ErrorReason.CREDENTIALS, "denied"),
        (ErrorReason.NOT_LISTED, "denied"),
        (ErrorReason.UNKNOWN, "not_found"),
        (ErrorReason.REGISTRY_DOWN, "error"),
        (ErrorReason.NO_SOURCE, "error"),
    ],
)
def test_an_order_that_failed_is_tried_again_where_the_reason_may_pass(
    reason: ErrorReason, code: str
) -> None:
    """A blob's status is 404 for every reason: trackers give up what is `denied` or `not_found`."""
    group = ExceptionGroup("", [blob_refusal(reason, "docker.io", "a blob")])

    assert explain(group)[0] == code
