"""What a running daemon believes beside what its secret file holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2pdist.doctor.believed import check_believed
from p2pdist.doctor.findings import Level
from p2pdist.doctor.local import check_keys
from p2pdist.model.members import Address
from p2pdist.process.admin import AdminServer
from p2pdist.process.keys import Step, make_keys, rotate_secret
from p2pdist.process.secret_holder import secret_holder, secret_status
from p2pdist.settings import Cluster, Settings, Tracker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cluster=Cluster(make_keys(tmp_path / "keys").secret_file))


@pytest.fixture
async def told() -> AsyncIterator[tuple[dict[str, Any], Address]]:
    """What a daemon's status page says, and where."""
    status: dict[str, Any] = {}
    server = AdminServer(Address("127.0.0.1", 0), status=lambda: status, samples=list, ready=dict)
    yield status, await server.start()
    await server.close()


def at(settings: Settings, admin: Address) -> Settings:
    return replace(settings, tracker=Tracker(admin_listen=admin))


async def test_a_daemon_that_has_not_taken_up_the_file_is_named(
    settings: Settings, told: tuple[dict[str, Any], Address]
) -> None:
    status, admin = told
    holder, seen = secret_holder(settings), at(settings, admin)
    status |= secret_status(holder)
    assert await check_believed(seen, "tracker") == []
    path = settings.cluster.secret_file
    assert path is not None
    held = rotate_secret(path, Step.ADD)

    (finding,) = await check_believed(seen, "tracker")

    assert finding.level is Level.WARN
    assert finding.text == (
        f"the tracker that runs believes {holder.believed()}; the file holds {held}"
    )
    (secret, *_) = check_keys(settings, "tracker")
    assert secret.text == f"fingerprints {held}, for its owner only"


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"cluster_secret": None},
        {"cluster_secret": {"fingerprints": 3}},
        {"cluster_secret": {"fingerprints": []}},
        {"cluster_secret": []},
    ],
)
async def test_a_daemon_that_does_not_tell_is_no_finding(
    settings: Settings, told: tuple[dict[str, Any], Address], status: dict[str, Any]
) -> None:
    told[0].update(status)

    assert await check_believed(at(settings, told[1]), "tracker") == []


async def test_without_a_file_or_a_daemon_there_is_nothing_to_say(
    settings: Settings, told: tuple[dict[str, Any], Address]
) -> None:
    status, admin = told
    status |= secret_status(secret_holder(settings))

    assert await check_believed(at(Settings(), admin), "tracker") == []
    assert await check_believed(at(settings, Address("127.0.0.1", 1)), "tracker") == []
