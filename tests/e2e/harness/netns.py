"""Hosts as network namespaces, joined by bridges that have a namespace of their own.

Each datacenter has a bridge; all but the first hang on the first one's by a link that can be cut.

Nothing of it touches the machine's own interfaces, routes or iptables: the address range may be in
use outside, and deleting the namespaces deletes everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from tests.e2e.harness.processes import LabError, run

NETNS_DIR: Final = Path("/run/netns")
SUBNET: Final = IPv4Network("10.77.0.0/24")
HOSTS_MAX: Final = 32
FIRST_DC: Final = "dc1"
# tbf needs a bucket of rate / HZ (250): 500 kB at 1 Gbit/s; a smaller one caps the rate.
BURST_BYTES: Final = 1 << 19
QUEUE_S: Final = 0.05
_CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the lab."""

    name: str
    netns: str
    address: str

    def inside(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` on this host.

        nsenter, not `ip netns exec`: the latter remounts /sys, which hides the cgroups from Docker.
        """
        return ["nsenter", f"--net={NETNS_DIR / self.netns}", "--", *argv]

    def run(self, *argv: str, timeout_s: float = 60.0) -> str:
        return run(self.inside(*argv), timeout_s=timeout_s)

    def connect(self, address: str, port: int, *, timeout_s: float = 10.0) -> socket.socket:
        """Return a TCP connection dialled from this host; raises OSError like `connect`."""
        # A namespace is a property of the thread: a socket keeps the one that it was made in.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(self._connect_here, address, port, timeout_s).result()

    def _connect_here(self, address: str, port: int, timeout_s: float) -> socket.socket:
        with (NETNS_DIR / self.netns).open("rb") as netns:
            if _libc.setns(netns.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.netns}")
        return socket.create_connection((address, port), timeout_s)

    def blackhole(self, address: str) -> None:
        """Make `address` unreachable from here at once: connections fail, none is refused."""
        self.run("ip", "route", "add", "blackhole", address)

    def stop_dropping(self, address: str) -> None:
        self.run("iptables", "-D", "OUTPUT", "-d", address, "-j", "DROP")

    def drop_to(self, address: str, port: int | None = None) -> None:
        """Let packets to `address` vanish: connections hang, as behind a firewall that drops.

        `port`: only those to this TCP port.
        """
        only = [] if port is None else ["-p", "tcp", "--dport", str(port)]
        self.run("iptables", "-A", "OUTPUT", "-d", address, *only, "-j", "DROP")

    def limit_uplink(self, mbit_per_s: int) -> None:
        """Let the link carry so much away from here, from now on."""
        _shape(self.inside("tc"), "eth0", mbit_per_s)

    def unplug(self) -> None:
        """Let all packets from and to other hosts vanish: no FIN, no RST; loopback goes on."""
        self.run("iptables", "-A", "INPUT", "-i", "eth0", "-j", "DROP")
        self.run("iptables", "-A", "OUTPUT", "-o", "eth0", "-j", "DROP")


class Network:
    """The bridge and its hosts."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._switch = f"{prefix}-switch"
        self._hosts: list[Host] = []
        self._bridges: dict[str, str] = {}

    def add_host(self, name: str, *, mbit_per_s: int | None = None, dc: str = FIRST_DC) -> Host:
        """Return a new host whose link carries `mbit_per_s` each way (None: what the CPU gives)."""
        assert len(self._hosts) < HOSTS_MAX
        address = str(IPv4Address(SUBNET.network_address + 1 + len(self._hosts)))
        host = Host(name, f"{self._prefix}-{name}", address)
        port = f"to-{len(self._hosts)}"
        _add_netns(host.netns)
        self._hosts.append(host)
        self._in_switch(
            "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.netns
        )
        self._in_switch("link", "set", port, "master", self._bridge(dc), "up")
        host.run("ip", "address", "add", f"{address}/{SUBNET.prefixlen}", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        if mbit_per_s is not None:
            _shape(host.inside("tc"), "eth0", mbit_per_s)
            _shape(_inside(self._switch, "tc"), port, mbit_per_s)
        return host

    def cut(self, dc: str) -> None:
        """Part `dc` from the first datacenter: packets vanish."""
        self._in_switch("link", "set", f"up-{self._bridges[dc]}", "down")

    def heal(self, dc: str) -> None:
        self._in_switch("link", "set", f"up-{self._bridges[dc]}", "up")

    def border(self, dc: str) -> tuple[list[str], str]:
        """How to run a command beside the link of `dc`, and the interface that leads into it."""
        return _inside(self._switch), f"up-{self._bridges[dc]}"

    def open(self) -> None:
        _add_netns(self._switch)
        self._bridge(FIRST_DC)

    def _bridge(self, dc: str) -> str:
        """Return the bridge of `dc`, made and linked to the first one where it is new."""
        if dc not in self._bridges:
            bridge = self._bridges[dc] = f"br{len(self._bridges)}"
            self._in_switch("link", "add", bridge, "type", "bridge")
            self._in_switch("link", "set", bridge, "up")
            if dc != FIRST_DC:
                up, down = f"up-{bridge}", f"down-{bridge}"
                self._in_switch("link", "add", up, "type", "veth", "peer", "name", down)
                self._in_switch("link", "set", up, "master", self._bridges[FIRST_DC], "up")
                self._in_switch("link", "set", down, "master", bridge, "up")
        return self._bridges[dc]

    def close(self) -> None:
        """Delete everything, also what a failure left half made."""
        for netns in [*(host.netns for host in self._hosts), self._switch]:
            if (NETNS_DIR / netns).exists():
                run(["ip", "netns", "delete", netns])

    def _in_switch(self, *args: str) -> None:
        run(["ip", "-n", self._switch, *args])


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Yield an empty network with names that no other test run uses; delete it afterwards."""
    _delete_orphans()
    opened = Network(f"p2pe{os.getpid()}")
    try:
        opened.open()
        yield opened
    finally:
        opened.close()


def _inside(netns: str, *argv: str) -> list[str]:
    return ["nsenter", f"--net={NETNS_DIR / netns}", "--", *argv]


def _add_netns(netns: str) -> None:
    run(["ip", "netns", "add", netns])
    run(["ip", "-n", netns, "link", "set", "lo", "up"])
    # BBR, the default of some machines, paces even loopback: a fifth of reno's throughput there.
    run(_inside(netns, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno"))


def _shape(tc: list[str], interface: str, mbit_per_s: int) -> None:
    limit_bytes = int(mbit_per_s * 125_000 * QUEUE_S) + BURST_BYTES
    bucket = ["rate", f"{mbit_per_s}mbit", "burst", str(BURST_BYTES), "limit", str(limit_bytes)]
    run([*tc, "qdisc", "replace", "dev", interface, "root", "tbf", *bucket])


def _delete_orphans() -> None:
    """Delete the namespaces of test runs that were killed before they could."""
    for path in NETNS_DIR.glob("p2pe*-*"):
        owner = path.name.removeprefix("p2pe").partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(LabError):  # another run may be at it, too
                run(["ip", "netns", "delete", path.name])
