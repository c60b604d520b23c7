"""One host, a user without root, and a cluster of three, as the texts have them set up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import pytest

from tests.first_hour.conftest import World
from tests.first_hour.roots import USER, Machine
from tests.first_hour.texts import INSTALL, README, blocks, in_foreground, typed

pytestmark = pytest.mark.e2e

# As docs/install.md has them.
TRACKER: Final = "10.0.0.2"
PROXIES: Final = ("10.0.0.1", "10.0.0.3")
IMAGE: Final = "docker.io/library/alpine:latest"
UNTIL_READY: Final = "until p2pdist doctor --quick --role all-in-one >/dev/null; do sleep 0.2; done"
UNTIL_SHOWN: Final = "until p2pdist status 2>/dev/null | grep -q '^{role}'; do sleep 0.2; done"


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


def test_daemons_in_the_foreground(world: World) -> None:
    """Their addresses are those of the cluster below, which comes when these hosts are gone."""
    init, tracker, proxy, peer, *looks = blocks(README)["by-hand"].splitlines()
    first = PROXIES[0]
    hosts = {a: world.host(f"hand{a[-1]}", a, docker=False) for a in (first, TRACKER)}
    _hand_out(hosts[first].run(init), hosts, hosts[first], [first])
    daemons = [(TRACKER, "tracker", tracker), (first, "proxy", proxy)]
    daemons += [(address, "peer", peer) for address in hosts]
    for address, role, line in daemons:
        until = UNTIL_SHOWN.format(role=role)
        hosts[address].run(in_foreground(line, f"/var/log/{role}.log", until))

    for host in hosts.values():
        host.run("p2pdist pull alpine")
    shown = [host.run("\n".join(looks)) for host in hosts.values()]

    assert "FAIL" not in "".join(shown)
    assert f"pulled    {IMAGE}, " in shown[-1], shown[-1]
    assert re.search(r"^ +from .*(dc|rack) \d+\.\d MB", shown[-1], re.MULTILINE), shown[-1]
    for host in hosts.values():
        host.leave()


@pytest.fixture(scope="module")
def cluster(world: World) -> dict[str, Machine]:
    """Address -> host; the files that `cluster init` wrote lie where it says they belong."""
    text = blocks(INSTALL)
    hosts = {address: world.host(f"n{address[-1]}", address) for address in (*PROXIES, TRACKER)}
    for host in hosts.values():
        host.run(text["units"])
    first = hosts[PROXIES[0]]
    _hand_out(first.run(text["cluster-init"]), hosts, first, PROXIES)
    return hosts


def _hand_out(
    said: str, hosts: Mapping[str, Machine], first: Machine, proxies: Sequence[str]
) -> None:
    """Copy what `cluster init` wrote on `first` to where it says that it belongs."""
    everywhere, at_proxies = _named(said, "every host"), _named(said, "proxies too")
    assert "cluster.secret" in everywhere
    assert "proxy.key" in at_proxies
    for address, host in hosts.items():
        if host is not first:
            host.run("mkdir -p -m 755 /etc/p2pdist/conf.d")
            for name in [*everywhere, *(at_proxies if address in proxies else [])]:
                host.write(f"/etc/p2pdist/{name}", (first.upper / "etc/p2pdist" / name))


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
