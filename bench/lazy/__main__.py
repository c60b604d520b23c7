"""Measure how soon a container starts from an image that its host does not have.

    python -m bench.lazy                  all of it, three rounds (3 minutes)
    python -m bench.lazy start --rounds 5
    python -m bench.lazy start containerd read scan kills many

Needs root, network namespaces, debootstrap and docker-registry (`make bench-lazy` installs them).
Real daemons, each host a namespace behind a token bucket of 50 MB/s; the image is 440 MB of gzip in
six layers, and lies at the proxy with its indexes. Cold: the host has no byte of it, and nothing is
in memory. The clock runs from `p2pdist mount` to the first line of output; with containerd, which
`many` has as well, from its pull to the container's end. Figures are medians.
Writes `build/bench-lazy.json`; prints TARGET lines.
"""

from __future__ import annotations

import argparse
import compileall
import itertools
import os
import platform
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.lazy.image import BIG_FILE, big_image, python_image
from bench.lazy.world import MBIT_PER_S, Machine, World, cold, open_world
from bench.swarm.images import blob_path
from bench.swarm.measure import busy_s, cpu_s, peak_mb
from bench.targets import publish
from p2pdist.demo.report import Target
from p2pdist.oci.image_config import diff_ids_of_config
from tests.e2e.harness.processes import LabError, run, wait_until

OUT: Final = Path("build/bench-lazy.json")
JSON: Final = ["/usr/bin/python3", "-c", "import json; print(json)"]
PANDAS: Final = ["/usr/bin/python3", "-c", "import numpy, pandas; print(pandas)"]
PYTHON, BIG = "library/python", "library/big"
MANY_HOSTS: Final = 10
KILLS: Final = 3
KILL_EVERY_S: Final = 1.0
FILES: Final = 7_000
BLOCK_BYTES: Final = 1 << 20

Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="|".join(MEASURES))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    compileall.compile_dir("p2pdist", quiet=1)  # as whoever installs it has it
    parts = options.parts or list(MEASURES)
    if unknown := [part for part in parts if part not in MEASURES]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    images = {PYTHON: python_image()} | ({BIG: big_image()} if "read" in parts else {})
    figures: Figures = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
        "python": platform.python_version(),
    }
    for part in parts:
        # A world for each: what the hosts of one have read, those of another would have near by.
        name = BIG if part == "read" else PYTHON
        with open_world({name: images[name]}) as world:
            found = MEASURES[part](world, options.rounds)
            if name == PYTHON:
                figures["index_ratio"] = world.index_bytes[PYTHON] / _size(world, PYTHON)
        for name, value in found.items():
            print(f"{name:<28} {value}", flush=True)
        figures[part] = found
    targets = _targets(figures)
    publish(targets, figures, OUT)
    print(f"written: {OUT}")
    return 0


def _size(world: World, repository: str) -> int:
    return sum(layer.size_bytes for layer in world.images[repository].layers)


def _start(world: World, rounds: int) -> Figures:
    """One container on a host that knows nothing, twice: one that needs little, one that needs
    more."""
    found: Figures = {}
    for name, command in (("json", JSON), ("pandas", PANDAS)):
        runs = []
        for number in range(rounds):
            machine = world.fresh(f"{name}{number}")
            cold()
            runs.append(machine.run(PYTHON, command))
            machine.stop()
        found[f"{name}_s"] = [run.first_output_s for run in runs]
        found[f"{name}_mounted_s"] = [run.mounted_s for run in runs]
        found[f"{name}_fetched_bytes"] = [run.fetched_bytes for run in runs]
    median = statistics.median(found["json_fetched_bytes"])
    found["bytes_ratio"] = median / _size(world, PYTHON)
    return found


def _containerd(world: World, rounds: int) -> Figures:
    """The same by containerd's CRI: what its pull takes, and how soon the container says something
    after the pull was asked for; the last ones on hosts that are told what the first ones read."""
    layers = [layer.digest for layer in world.images[PYTHON].layers]
    found: Figures = {"pull_s": [], "pull_layer_gets": 0, "json_s": [], "json_fetched_bytes": []}
    for number in range(rounds):
        with world.fresh(f"cri{number}").containerd() as started:
            cold()
            run = started.start(PYTHON, JSON, layers)
            found["pull_s"].append(run.pull_s)
            found["pull_layer_gets"] = max(found["pull_layer_gets"], run.layer_gets)
            found["json_s"].append(run.ended_s)
            found["json_fetched_bytes"].append(run.fetched_bytes)
    for name in ("untraced", "traced"):
        found[f"pandas_{name}_s"] = []
        for number in range(rounds):
            machine = world.fresh(f"{name}{number}")
            with machine.containerd() as started:
                cold()
                found[f"pandas_{name}_s"].append(started.start(PYTHON, PANDAS, layers).ended_s)
                if name == "untraced" and number == 0:
                    wait_until(partial(machine.knows_starts, layers), "trace", timeout_s=120)
    return found


def _read(world: World, rounds: int) -> Figures:
    """One file of 1 GB from its begin to its end, none of which is here."""
    machine = world.fresh("reader")
    machine.mount(BIG)
    pids = [machine.peer.process.pid, world.proxy.process.pid, machine.worker() or 0]
    cold()
    before_s, began_s = cpu_s(pids), time.monotonic()
    nbytes = _size_read(machine.target / BIG_FILE)
    took_s = time.monotonic() - began_s
    found = {
        "read_s": took_s,
        "read_of_link": nbytes / took_s / (MBIT_PER_S * 1e6 / 8),
        "read_cpu_s_per_gb": (cpu_s(pids) - before_s) / (nbytes / 1e9),
        "read_peak_mb": dict(zip(("peer", "proxy", "worker"), map(peak_mb, pids), strict=True)),
    }
    machine.stop()
    return found | _read_when_complete(world, rounds)


def _read_when_complete(world: World, rounds: int) -> Figures:
    """The same file in what a container mounts once all is here, and by the host's own overlayfs,
    in turns."""
    machine = world.fresh("complete")
    image = world.images[BIG]
    # The chain ID of the lowest layer, of which there is one.
    (diff_id,) = diff_ids_of_config(blob_path(image, image.config).read_bytes())
    with ExitStack() as stack:
        place = stack.enter_context(TemporaryDirectory(prefix="p2po-", dir=OUT.parent.absolute()))
        ours, own = Path(place, "ours"), Path(place, "own")
        lower, upper, scratch = (Path(place, name) for name in ("lower", "upper", "scratch"))
        for path in (ours, own, lower, upper, scratch):
            path.mkdir()
        engine = stack.enter_context(machine.containerd(fill=True))
        stack.enter_context(engine.unpacked(BIG, diff_id, ours))
        (lower / BIG_FILE).parent.mkdir(parents=True)
        shutil.copyfile(ours / BIG_FILE, lower / BIG_FILE)
        layers = f"lowerdir={lower},upperdir={upper},workdir={scratch}"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, str(own)])
        stack.callback(run, ["umount", str(own)])
        took: dict[Path, list[float]] = {ours: [], own: []}
        for _ in range(rounds):
            for root, seconds in took.items():
                cold()
                began_s = time.monotonic()
                nbytes = _size_read(root / BIG_FILE)
                seconds.append(time.monotonic() - began_s)
    return {
        "complete_read_mb_per_s": [nbytes / 1e6 / seconds for seconds in took[ours]],
        "complete_read_ratio": statistics.median(took[ours]) / statistics.median(took[own]),
    }


def _size_read(path: Path) -> int:
    nbytes = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(BLOCK_BYTES):
            nbytes += len(data)
    return nbytes


def _scan(world: World, rounds: int) -> Figures:
    """All names of the image and what stat(2) says of them."""
    machine = world.fresh("scanner")
    machine.mount(PYTHON)
    rates = []
    for _ in range(rounds):
        cold()
        began_s = time.monotonic()
        names = machine.host.run("find", str(machine.target), "-xdev", "-printf", "%s\\n")
        entries = names.count("\n")
        rates.append(entries / (time.monotonic() - began_s))
    machine.stop()
    return {"entries": entries, "entries_per_s": rates}


def _kills(world: World, rounds: int) -> Figures:
    """The worker is killed three times while files are read that lie at the host's peer."""
    machine = world.fresh("killed")
    machine.mount(PYTHON)
    paths = list(itertools.islice(_files(machine.target), FILES))
    errors = _read_all(paths)[0]  # which fetches them
    cold()
    undisturbed_s = _read_all(paths)[1]
    cold()
    longest_s = 0.0
    with ThreadPoolExecutor(1) as beside:
        killing = beside.submit(_kill, machine)
        while not killing.done():
            failed, slowest_s = _read_all(paths)
            errors, longest_s = errors + failed, max(longest_s, slowest_s)
            cold()
        killing.result()  # raises what kept it from killing
    machine.stop()
    return {
        "files": len(paths),
        "kill9_errors": errors,
        "undisturbed_s": undisturbed_s,
        "kill9_stall_s": longest_s,
    }


def _files(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _read_all(paths: list[Path]) -> tuple[int, float]:
    """How many could not be read, and how long the slowest read of a block took."""
    errors, slowest_s = 0, 0.0
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                more = True
                while more:
                    began_s = time.monotonic()
                    more = bool(file.read(BLOCK_BYTES))
                    slowest_s = max(slowest_s, time.monotonic() - began_s)
        except OSError as error:
            print(f"{path}: {error}", file=sys.stderr)
            errors += 1
    return errors, slowest_s


def _kill(machine: Machine) -> None:
    """Raises LabError where there is no worker to kill, or none comes after it."""
    for _ in range(KILLS):
        time.sleep(KILL_EVERY_S)  # of reading, between two kills
        _kill_worker(machine)


def _kill_worker(machine: Machine) -> None:
    worker = machine.worker()
    if worker is None:
        raise LabError("no worker to kill")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: machine.worker() not in (None, worker), "worker after the killed one")


def _many(world: World, rounds: int) -> Figures:
    """Ten hosts with a containerd start the same container in one moment."""
    layers = [layer.digest for layer in world.images[PYTHON].layers]
    one = world.fresh("one")
    with one.containerd() as engine:
        cold()
        alone = engine.start(PYTHON, JSON, layers)
        again_alone_s = engine.again(PYTHON, JSON)
    one.peer.stop()  # nobody else is to have anything from it
    with ExitStack() as stack:
        machines = [world.fresh(f"many{number}") for number in range(MANY_HOSTS)]
        engines = [stack.enter_context(machine.containerd()) for machine in machines]
        cold()
        busy_before_s = busy_s()
        upstream_before, proxy_before = world.registry.payload_bytes(), _sent(world)
        with ThreadPoolExecutor(MANY_HOSTS) as at_once:
            running = [at_once.submit(engine.start, PYTHON, JSON, layers) for engine in engines]
            started = [each.result() for each in running]
            busy = busy_s() - busy_before_s
            # The container alone, of which nothing has to come from anywhere: what two cores allow.
            again = [at_once.submit(engine.again, PYTHON, JSON) for engine in engines]
            again_s = [each.result() for each in again]
        registry_bytes = world.registry.payload_bytes() - upstream_before
    read = max(each.fetched_bytes for each in started)
    return {
        "alone_s": alone.ended_s,
        "cpu_s_per_host": busy / MANY_HOSTS,
        "each_s": sorted(each.ended_s for each in started),
        "each_pull_s": sorted(each.pull_s for each in started),
        "each_fetched_bytes": [each.fetched_bytes for each in started],
        "registry_bytes": registry_bytes,
        "left_the_proxy_ratio": (_sent(world) - proxy_before) / read,
        "upstream_ratio": registry_bytes / read,
        "again_alone_s": again_alone_s,
        "again_last_s": max(again_s),
        "again_last_ratio": max(again_s) / again_alone_s,
        "last_ratio": max(each.ended_s for each in started) / alone.ended_s,
    }


def _sent(world: World) -> int:
    return sum(world.proxy.status().sent.values())


MEASURES: Final[dict[str, Callable[[World, int], Figures]]] = {
    "start": _start,
    "containerd": _containerd,
    "read": _read,
    "scan": _scan,
    "kills": _kills,
    "many": _many,
}


def _targets(figures: Figures) -> list[Target]:
    targets = []
    if ratio := figures.get("index_ratio"):
        targets.append(Target("lazy.index_ratio", ratio, "<=", 0.01))
    if start := figures.get("start"):
        targets += [
            Target("lazy.mount_first_output_s", statistics.median(start["json_s"]), "<=", 1.0),
            Target("lazy.pandas_cold_s", statistics.median(start["pandas_s"]), "<=", 5.0),
            Target("lazy.bytes_before_first_output_ratio", start["bytes_ratio"], "<=", 0.05),
        ]
    if cri := figures.get("containerd"):
        targets += [
            Target("lazy.first_output_s", statistics.median(cri["json_s"]), "<=", 1.0),
            Target("lazy.pull_s", statistics.median(cri["pull_s"]), "<=", 0.21),
            Target("lazy.pull_layer_gets", cri["pull_layer_gets"], "<=", 0),
            Target("lazy.pandas_traced_s", statistics.median(cri["pandas_traced_s"]), "<=", 3.0),
        ]
    if read := figures.get("read"):
        targets += [
            Target("lazy.fill_read_ratio", read["read_of_link"], ">=", 0.85),
            Target("lazy.complete_read_ratio", read["complete_read_ratio"], "<=", 1.1),
        ]
    if scan := figures.get("scan"):
        rate = statistics.median(scan["entries_per_s"])
        targets.append(Target("lazy.scan_entries_per_s", rate, ">=", 40_000))
    if kills := figures.get("kills"):
        targets += [
            Target("lazy.kill9_errors", kills["kill9_errors"], "<=", 0),
            Target("lazy.kill9_stall_s", kills["kill9_stall_s"], "<=", 0.5),
        ]
    if many := figures.get("many"):
        targets += [
            Target("lazy.ten_hosts_upstream_ratio", many["upstream_ratio"], "<=", 1.05),
            Target("lazy.ten_hosts_last_ratio", many["last_ratio"], "<=", 2.0),
        ]
    return targets


if __name__ == "__main__":
    sys.exit(main())
