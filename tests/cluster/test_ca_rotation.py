"""The drill of docs/security.md: another CA, by renewals alone, while images are pulled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.control import renewing
from p2pdist.control.core import renewal
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.process import clock, identity_holder
from p2pdist.process.ca import (
    CA_KEY_NAME,
    CA_NAME,
    Ca,
    Issued,
    new_ca,
    new_key,
    private_pem,
    sign,
)
from p2pdist.process.certificates import described
from p2pdist.process.files import write_whole
from p2pdist.tracker.core import renewals
from tests.cluster.test_identity import IDS
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.process.identities import TestCa, kept
from tests.tracker.servers import wait_until

LIFE_S = 60.0
"""Two thirds of it, with what certificates are dated back, are over at once: it is always time for
the next one."""
STEPS = ("one CA", "two are believed", "the new one signs", "the old one is gone")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        for number in range(len(STEPS)):
            found.add_image("library/app", str(number), [random_bytes(1 << 20, number)])
        yield found


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_holder, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(renewing, "LOOK_EVERY_S", 1.1)  # certificates end at whole seconds
    monkeypatch.setattr(renewal, "RUSH_S", 0.0)
    monkeypatch.setattr(renewals, "HOST_PAUSE_S", 0.0)


def short(ca: Ca, role: str, path: Path) -> Path:
    """The directory of a host with a certificate that has to be renewed."""
    key, who = new_key(), Identity(IdentityRole(role), IDS[role])
    made = sign(ca, who, key.public_key(), life_s=LIFE_S, now_s=clock.unix_s())
    return kept(
        path, ca, Issued(made.public_bytes(Encoding.PEM), private_pem(key), described(made))
    )


async def test_another_ca_without_a_restart_and_without_a_pull_that_fails(
    lab: Lab, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    old, new = TestCa(tmp_path), new_ca(clock.unix_s())
    lab.identities = {role: short(old.ca, role, tmp_path / f"of {role}") for role in IDS}
    lab.require_identity, lab.ca_dir = True, old.keep()
    tracker, proxy, peer = await lab.tracker(), await lab.proxy(), await lab.peer("one")
    own = [tracker.server._identity, proxy.running.identity, peer.running.identity]
    holders = [holder for holder in own if holder is not None]
    assert len(holders) == len(IDS)

    def all_believe(*cas: Ca, certified_by: Ca) -> bool:
        """Those and no other."""
        believed = [ca.certificate.public_bytes(Encoding.DER) for ca in cas]
        issuer = certified_by.certificate.subject.rfc4514_string()
        now = [holder.current for holder in holders]
        return all(list(it.cas) == believed and it.says.issuer == issuer for it in now)

    def tracker_believes(*cas: Ca) -> None:
        place = lab.identities["tracker"] / CA_NAME
        write_whole(place, b"".join(ca.pem for ca in cas), mode=0o644)

    async def pulls(step: int) -> None:
        await pull(client, url_of(peer.mirror), tag=str(step))
        await wait_until(lambda: len(tracker.server.core.hosts) == 2)

    assert all_believe(old.ca, certified_by=old.ca)
    await pulls(0)
    tracker_believes(old.ca, new)
    await wait_until(lambda: all_believe(old.ca, new, certified_by=old.ca))
    await pulls(1)
    for name, data in ((CA_KEY_NAME, private_pem(new.key)), (CA_NAME, new.pem)):
        write_whole(lab.ca_dir / name, data)
    await wait_until(lambda: all_believe(old.ca, new, certified_by=new))
    await pulls(2)
    tracker_believes(new)
    await wait_until(lambda: all_believe(new, certified_by=new))
    await pulls(3)

    assert [holder.trouble for holder in holders] == ["", "", ""]
    for health in (tracker.server.health, proxy.running.node.health, peer.running.node.health):
        assert set(health.names()) <= {"identity_ends"}  # which is always soon here
