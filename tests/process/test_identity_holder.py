"""The certificate a daemon goes by: a new one is taken up, a broken one is said and left."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pdist.model.health import Reason
from p2pdist.model.ids import HostId
from p2pdist.process import clock
from p2pdist.process.certificates import DAY_S
from p2pdist.process.identity_holder import (
    IdentityHolder,
    ends_soon,
    identity_conditions,
    identity_samples,
    identity_status,
)
from tests.process.identities import TestCa

ID = HostId("a" * 32)


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def held(ca: TestCa, *, required: bool = False, later_days: float = 0.0) -> IdentityHolder:
    """A holder whose clock is that far ahead."""
    identity = ca.identity("peer", ID, required=required)
    return IdentityHolder(identity, unix_s=lambda: clock.unix_s() + later_days * DAY_S)


def put(holder: IdentityHolder, source: Path, *names: str) -> None:
    for name in names or ("ca.pem", "key.pem", "cert.pem"):
        shutil.copy2(source / name, holder.current.directory / name)


async def looked(holder: IdentityHolder) -> None:
    """As often as it takes: what is no good is believed to be so at the second look."""
    await holder.look()
    await holder.look()


async def test_a_new_one_is_taken_up_and_the_old_one_is_left_as_it_was(
    ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    holder = held(ca)
    first = holder.current
    await looked(holder)
    assert holder.current is first
    put(holder, ca.directory("peer", ID, begun_days=-0.001))

    with caplog.at_level(logging.INFO):
        holder.unix_s = lambda: clock.unix_s() + DAY_S
        await holder.look()

    assert holder.current.says.ends_s > first.says.ends_s
    assert holder.current.client is not first.client
    assert holder.trouble == ""
    assert "identity.taken" in caplog.text
    taken = {sample.name: sample.value for sample in identity_samples(holder)}
    assert taken["p2pdist_identity_taken_total"] == 1


def broken(_: TestCa, holder: IdentityHolder) -> None:
    (holder.current.directory / "cert.pem").write_text("none")


def of_two(ca: TestCa, holder: IdentityHolder) -> None:
    put(holder, ca.directory("peer", ID), "cert.pem")


def of_another_host(ca: TestCa, holder: IdentityHolder) -> None:
    put(holder, ca.directory("peer", HostId("b" * 32)))


def of_another_role(ca: TestCa, holder: IdentityHolder) -> None:
    put(holder, ca.directory("proxy", ID))


def ended(ca: TestCa, holder: IdentityHolder) -> None:
    put(holder, ca.directory("peer", ID, begun_days=40))


def gone(_: TestCa, holder: IdentityHolder) -> None:
    (holder.current.directory / "key.pem").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (broken, "cert.pem is no certificate of ours"),
        (of_two, "key.pem is not the key of"),
        (of_another_host, f"is for peer {'b' * 32}; until it is restarted this daemon is peer"),
        (of_another_role, "is for proxy"),
        (ended, "expired 10 days ago"),
        (gone, "key.pem: No such file"),
    ],
)
async def test_one_that_is_no_good_is_said_and_the_old_one_stays(
    ca: TestCa,
    spoil: Callable[[TestCa, IdentityHolder], None],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    holder = held(ca)
    first = holder.current
    spoil(ca, holder)

    await looked(holder)
    await holder.look()

    assert holder.current is first
    assert says in identity_conditions(holder)[Reason.IDENTITY_UNREAD]
    assert says in identity_status(holder)["identity"]["trouble"]
    assert caplog.text.count("identity.unread") == 1
    put(holder, ca.directory("peer", ID))
    await holder.look()
    assert holder.current is not first
    assert identity_conditions(holder) == {}


async def test_files_that_are_being_written_are_no_trouble(ca: TestCa) -> None:
    holder, fresh = held(ca), ca.directory("peer", ID)
    for name in ("ca.pem", "key.pem", "cert.pem"):
        put(holder, fresh, name)
        await holder.look()
        assert holder.trouble == ""
    assert holder.taken_total == 2, "a CA alone is a change, too"


async def test_one_that_has_ended_is_not_spoken_with_unless_it_must(ca: TestCa) -> None:
    holder = held(ca, later_days=31)
    assert not holder.spoken
    assert "secret alone" in identity_conditions(holder)[Reason.IDENTITY_ENDS]
    put(holder, ca.directory("peer", ID, begun_days=-31))
    await holder.look()
    assert holder.spoken is holder.current
    assert identity_conditions(holder) == {}

    holder = held(ca, required=True, later_days=31)
    assert holder.spoken is holder.current
    assert "no tracker takes this host" in identity_conditions(holder)[Reason.IDENTITY_ENDS]


def test_what_should_have_been_renewed_is_said(ca: TestCa) -> None:
    holder = held(ca)
    says = holder.current.says
    assert not ends_soon(says, says.ends_s - 6.1 * DAY_S)
    assert ends_soon(says, says.ends_s - 5.9 * DAY_S)
    late = IdentityHolder(holder.current, unix_s=lambda: says.ends_s - 3 * DAY_S)
    assert "ends in 3 days" in identity_conditions(late)[Reason.IDENTITY_ENDS]


def test_what_is_told_of_it(ca: TestCa) -> None:
    holder = held(ca)
    (left, *_) = identity_samples(holder)
    assert left.value == pytest.approx(30 * DAY_S, abs=10)
    assert identity_status(holder)["identity"]["host_id"] == ID
    assert identity_status(None) == {"identity": None}
    assert list(identity_samples(None)) == []
    assert identity_conditions(None) == {}
