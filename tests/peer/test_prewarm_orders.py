"""Orders that make no sense are refused before a name of theirs reaches a request or a runtime."""

from __future__ import annotations

import msgspec
import pytest

from p2pdist.model.control import BlobRef, Prewarm, PrewarmImage
from p2pdist.model.ids import digest_of
from p2pdist.peer.prewarming import OrderRefused, check_order

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
