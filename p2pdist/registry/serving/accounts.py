"""On whose account a request is."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from p2pdist.exchange.accepting import network_of_address
from p2pdist.model.identity import IdentityRole
from p2pdist.process.certificates import identity_in
from p2pdist.registry.ports import account_of_host

CERTIFICATES_MAX: Final = 4096


def account_of(certificate: bytes | None, address: str) -> str:
    """The host that `certificate` (DER, of the connection) is for, else the network of `address`:
    an IPv4 address, or the /64 of an IPv6 one."""
    return _certified(certificate) if certificate else network_of_address(address)


@lru_cache(CERTIFICATES_MAX)
def _certified(der: bytes) -> str:
    """TLS has seen to it that a CA of ours issued it; what is for nobody is one caller."""
    try:
        shown = identity_in(der)
        return account_of_host(shown.host_id, is_proxy=shown.role is IdentityRole.PROXY)
    except ValueError:
        return account_of_host("")
