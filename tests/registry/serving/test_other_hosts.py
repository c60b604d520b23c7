from __future__ import annotations

import pytest

from p2pdist.registry.serving.other_hosts import is_other_host


@pytest.mark.parametrize(
    ("client", "own", "other"),
    [
        (("127.0.0.1", 4711), ("127.0.0.1", 5300), False),
        (("::1", 4711, 0, 0), ("::1", 5300, 0, 0), False),
        (("::ffff:127.0.0.1", 4711, 0, 0), ("::ffff:127.0.0.1", 5300, 0, 0), False),
        (("127.0.0.9", 4711), ("127.0.0.1", 5300), False),
        (("10.0.0.5", 4711), ("10.0.0.5", 5100), False),
        (("fd00::5", 4711, 0, 0), ("fd00::5", 5100, 0, 0), False),
        (("10.0.0.6", 4711), ("10.0.0.5", 5100), True),
        (("::ffff:10.0.0.6", 4711, 0, 0), ("::ffff:10.0.0.5", 5100, 0, 0), True),
        (("fd00::6", 4711, 0, 0), ("fd00::5", 5100, 0, 0), True),
        (None, ("10.0.0.5", 5100), True),
        (("10.0.0.6", 4711), None, True),
        ("", "", True),
    ],
)
def test_this_host_is_loopback_or_the_address_that_was_reached(
    client: object, own: object, other: bool
) -> None:
    assert is_other_host(client, own) is other
