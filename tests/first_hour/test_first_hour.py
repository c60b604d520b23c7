"""One host, a user without root, and a cluster of three, as the texts have them set up."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.first_hour.conftest import World
from tests.first_hour.roots import USER, Machine
from tests.first_hour.texts import INSTALL, README, blocks, typed

pytestmark = pytest.mark.e2e

# As docs/install.md has them.
TRACKER: Final = "10.0.0.2"
PROXIES: Final = ("10.0.0.1", "10.0.0.3")
IMAGE: Final = "docker.io/library/alpine:latest"
UNTIL_READY: Final = "until p2pdist doctor --quick --role all-in-one >/dev/null; do sleep 0.2; done"


def test_both_texts_install_in_the_same_way() -> None:
    assert blocks(README)["install"] == blocks(INSTALL)["install"]


def test_one_host(world: World) -> None:
    host = world.host("alone")
    before = world.registry.payload_bytes()
    text = blocks(README)

    shown = host.run(typed(text["one-host"], UNTIL_READY))

    assert "FAIL" not in shown
    assert f"pulled    {IMAGE}" in shown, shown
    assert re.search(r"^ +from .*upstream \d+\.\d MB", shown, re.MULTILINE), shown
    read = world.registry.payload_bytes() - before
    assert world.image.payload_bytes <= read <= 1.05 * world.image.payload_bytes
    host.run(text["one-host-ends"])
    assert "5300" not in host.run("docker info --format '{{.RegistryConfig.Mirrors}}'")


def test_a_user_without_root(world: World) -> None:
    host = world.host("user")

    shown = host.run(typed(blocks(INSTALL)["without-root"], UNTIL_READY), user=USER)

    assert f"pulled    {IMAGE}" in shown
    host.run("test -s alpine/index.json", user=USER)


@pytest.fixture(scope="module")
def cluster(world: World) -> dict[str, Machine]:
    """Address -> host; the files that `cluster init` wrote lie where it says they belong."""
    text = blocks(INSTALL)
    hosts = {address: world.host(f"n{address[-1]}", address) for address in (*PROXIES, TRACKER)}
    for host in hosts.values():
        host.run(text["units"])
    first = hosts[PROXIES[0]]
    said = first.run(text["cluster-init"])
    everywhere, proxies = _named(said, "every host"), _named(said, "proxies too")
    assert "cluster.secret" in everywhere
    assert "proxy.key" in proxies
    for address, host in hosts.items():
        if host is not first:
            for name in [*everywhere, *(proxies if address in PROXIES else [])]:
                host.write(f"/etc/p2pdist/{name}", (first.upper / "etc/p2pdist" / name))
    return hosts


def _named(said: str, whose: str) -> list[str]:
    """The files that belong there, of what `cluster init` printed."""
    (names,) = re.findall(rf"^  {whose} +(.+)$", said, re.MULTILINE)
    return str(names).split(", ")


def test_a_cluster_of_three(world: World, cluster: dict[str, Machine]) -> None:
    text = blocks(INSTALL)
    shown = [cluster[TRACKER].run(typed(text["tracker"], ""))]
    shown += [cluster[proxy].run(typed(text["proxy"], "")) for proxy in PROXIES]
    shown += [host.run(typed(text["peer"], "")) for host in cluster.values()]
    for role, addresses in {"peer": cluster, "proxy": PROXIES, "tracker": [TRACKER]}.items():
        shown += [cluster[address].run(f"p2pdist doctor --role {role}") for address in addresses]
    assert "FAIL" not in "".join(shown)
    before = world.registry.payload_bytes()

    for address in (TRACKER, *PROXIES):
        cluster[address].run("docker pull alpine")

    last = cluster[PROXIES[-1]]
    (pull, *_) = next(d for d in last.status() if d["role"] == "peer")["recent_pulls"]
    assert f"{pull['image']}:{pull['tag']}" == IMAGE
    sources = pull["bytes_by_source"]
    assert set(sources) <= {"rack", "dc", "proxy", "cache"}
    from_others = sum(nbytes for source, nbytes in sources.items() if source != "cache")
    assert from_others >= world.image.largest_layer.size_bytes
    read = world.registry.payload_bytes() - before
    assert read <= 1.05 * world.image.payload_bytes
    last.run(text["take-away"])
    assert not last.run("ls -d /opt/p2pdist /etc/p2pdist 2>/dev/null || true").strip()
