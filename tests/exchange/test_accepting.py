from __future__ import annotations

import pytest

from p2pdist.exchange.accepting import network_of_address


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),  # of which one host has as many as it likes
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("", ""),
        ("@unix", "@unix"),
    ],
)
def test_who_is_at_the_other_end(address: str, network: str) -> None:
    assert network_of_address(address) == network
