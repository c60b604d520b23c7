"""A host that joins a cluster of real daemons with a token, and pulls there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from p2pdist.cli.ca import ca as ca_command
from p2pdist.cli.join import join as join_command
from tests.cluster.test_identity import certified
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.process.identities import TestCa
from tests.tracker.servers import wait_until


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        found.add_image("library/app", "1", [random_bytes(1 << 20, 1)])
        yield found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_a_host_joins_with_a_token_and_pulls(
    lab: Lab, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    ca = TestCa(tmp_path)
    certified(lab, ca, "tracker", "proxy")
    lab.require_identity, lab.ca_dir = True, ca.keep()
    lab.join = f"127.0.0.1:{free_port()}"
    tracker = await lab.tracker()
    await lab.proxy()
    out = tmp_path / "joined"
    arguments = ["token", "--dir", str(lab.ca_dir), "--role", "peer", "--tracker", lab.join]
    token = CliRunner().invoke(ca_command, arguments, catch_exceptions=False).stdout.strip()

    joined = await asyncio.to_thread(
        CliRunner().invoke, join_command, [token, "--out", str(out)], catch_exceptions=False
    )

    assert joined.exit_code == 0
    lab.identities = {"peer": out}
    peer = await lab.peer("one")
    await wait_until(lambda: tracker.server.core.hosts_connected == 2)
    assert f"for    peer {peer.running.me().host_id}" in joined.output
    await pull(client, url_of(peer.mirror))
    async with client.get(f"{url_of(tracker.admin)}/metrics") as answer:
        assert "p2pdist_tracker_joined_total 1.0" in await answer.text()
