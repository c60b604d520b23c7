"""One mirror, no swarm: beside a plain file server, and what it adds to a small image.

No link is limited. A large layer lies whole at a peer, and the same file at nginx (its Debian
package, `sendfile` on) on the same host; curl reads both in turn. A small image lies at the proxy;
on hosts that have nothing of it, one after the other, it is pulled through the peer and, in turn,
from docker-registry itself.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.swarm.cases import Case
from bench.swarm.contenders import World, client, seen
from bench.swarm.images import blob_path, make_image
from p2pdist.demo.report import Target
from tests.e2e.harness.image import REFERENCE, REPOSITORY
from tests.e2e.harness.lab import open_lab
from tests.e2e.harness.p2p import PEER_MIRROR_URL
from tests.e2e.harness.processes import LabError, wait_until

NAME: Final = "one_mirror"
LARGE: Final = Case("large", 1, None, (512,), warm=True)
SMALL_MIB: Final = (1.6,) * 5
WARM_VS_NGINX_MAX: Final = 1.2
SMALL_IMAGE_EXTRA_MS_MAX: Final = 30.0
NGINX_PORT: Final = 8080
PULL_S: Final = 60.0


@dataclass(slots=True)
class Mirrored:
    """Seconds of each reading."""

    warm_s: list[float]
    nginx_s: list[float]
    small_s: list[float]
    registry_s: list[float]

    def targets(self) -> list[Target]:
        medians = (self.warm_s, self.nginx_s, self.small_s, self.registry_s)
        warm, nginx, small, registry = map(statistics.median, medians)
        extra_ms = 1000 * (small - registry)
        return [
            Target("mirror.warm_vs_nginx", warm / nginx, "<=", WARM_VS_NGINX_MAX),
            Target("mirror.small_image_extra_ms", extra_ms, "<=", SMALL_IMAGE_EXTRA_MS_MAX),
        ]

    def line(self) -> str:
        each = {
            "512 MiB from a peer": self.warm_s,
            "from nginx": self.nginx_s,
            "5 x 1.6 MiB from a cold peer": self.small_s,
            "from the registry": self.registry_s,
        }
        return "; ".join(
            f"{name} {statistics.median(found):.3f} s ({min(found):.3f} to {max(found):.3f})"
            for name, found in each.items()
        )


def measured(work: Path, rounds: int) -> Mirrored:
    """Take each reading `rounds` times. Raises LabError."""
    warm_s, nginx_s = _large(work, rounds)
    small_s, registry_s = _small(work, rounds)
    return Mirrored(warm_s, nginx_s, small_s, registry_s)


def _large(work: Path, rounds: int) -> tuple[list[float], list[float]]:
    image = make_image(LARGE.layers_mib, work / "large")
    layer = blob_path(image, image.layers[0])
    with open_lab() as lab:
        registry_host, core, host = (lab.host(name) for name in ("registry", "core", "host"))
        registry = lab.registry(registry_host, lab.work / "registry")
        registry.push(image, REFERENCE)
        cluster = lab.cluster(core, registry)
        cluster.start_tracker()
        cluster.start_proxy()
        cluster.start_peer(host)
        world = World(lab, registry, core, [host], [], image, LARGE)
        ahead = client(world, host, PEER_MIRROR_URL, time.monotonic(), "ahead")
        seen(ahead, time.monotonic() + PULL_S)
        conf = lab.work / "nginx.conf"
        conf.write_text(_nginx(layer.parent, lab.work / "nginx.pid"))
        world.start("nginx", host, "nginx", "-c", str(conf), "-e", "stderr")
        there = f"http://127.0.0.1:{NGINX_PORT}/{layer.name}"
        head = ("curl", "--silent", "--head", there)
        wait_until(lambda: "200 OK" in host.run("sh", "-c", f"{' '.join(head)} || true"), "nginx")
        here = f"{PEER_MIRROR_URL}/v2/{REPOSITORY}/blobs/{image.layers[0].digest}?ns=docker.io"
        size = layer.stat().st_size
        took: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for found, url in zip(took, (here, there), strict=True):
                form = "%{http_code} %{size_download} %{time_total}"
                argv = ("curl", "--silent", "--output", "/dev/null", "--write-out", form, url)
                status, count, total_s = host.run(*argv).split()
                if (status, int(count)) != ("200", size):
                    raise LabError(f"{url}: {status}, {count} of {size} bytes")
                found.append(float(total_s))
        return took


def _small(work: Path, rounds: int) -> tuple[list[float], list[float]]:
    image = make_image(SMALL_MIB, work / "small")
    with open_lab() as lab:
        registry_host, core = lab.host("registry"), lab.host("core")
        hosts = [lab.host(f"h{number}") for number in range(rounds)]
        registry = lab.registry(registry_host, lab.work / "registry")
        registry.push(image, REFERENCE)
        cluster = lab.cluster(core, registry)
        cluster.start_tracker()
        cluster.start_proxy()
        for host in hosts:
            cluster.start_peer(host)
        world = World(lab, registry, core, hosts, [], image, LARGE)

        def pulled(base: str, name: str, host_number: int) -> float:
            at_s = time.monotonic() + 1.0
            each = client(world, hosts[host_number], base, at_s, name)
            return seen(each, at_s + PULL_S).seconds

        pulled(cluster.endpoint, "ahead", 0)
        took: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            took[0].append(pulled(PEER_MIRROR_URL, f"peer-{number}", number))
            took[1].append(pulled(f"http://{registry.endpoint}", f"registry-{number}", number))
        return took


def _nginx(root: Path, pid: Path) -> str:
    # It removes the file of its number when it ends.
    return (
        f"daemon off; worker_processes 1; pid {pid}; error_log stderr; user root;\n"
        "events {}\n"
        "http { access_log off; sendfile on; tcp_nopush on;\n"
        f"server {{ listen 127.0.0.1:{NGINX_PORT}; location / {{ root {root}; }} }} }}\n"
    )
