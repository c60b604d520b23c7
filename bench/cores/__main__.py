"""What the cores of one host cost per chunk, alone: no network, no disk, no other host.

    python -m bench.cores                      4 and 24 neighbours, 4,096 and 65,536 chunks
    python -m bench.cores pull --profile 24 65536

`pull`: a host that fetches from a proxy and peers; `serve`: a peer that has it all; `seed`: the
same of a proxy. CPU of the cores' calls, the median of `--rounds`. Growth is the worst ratio from
few to many neighbours, and from few to many chunks. Prints TARGET lines, writes
`build/bench-cores.json`.
"""

from __future__ import annotations

import argparse
import gc
import platform
import pstats
import statistics
import sys
from cProfile import Profile
from pathlib import Path
from typing import Final

from bench.cores.lab import Pull, Serve
from bench.cores.meter import Meter
from bench.sim.content import Content
from bench.targets import publish
from p2pdist.demo.report import Target
from p2pdist.model.geometry import CHUNK_COUNT_GOAL, CHUNK_SIZE_MAX_BYTES

OUT: Final = Path("build/bench-cores.json")
WAYS: Final = ("pull", "serve", "seed")
FEW, MANY = 4, 24
CHUNKS: Final = (4096, 65536)
US_PER_CHUNK_MAX: Final = 60.0
GROWTH_MAX: Final = 1.3
WARM_CHUNKS: Final = 250
"""Until rates are known and first offers are in."""
MEASURED_CHUNKS: Final = 1000

Case = tuple[str, int, int]  # way, neighbours, chunks


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ways", nargs="*", metavar="way", choices=(*WAYS, []))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", nargs=2, type=int, metavar=("NEIGHBOURS", "CHUNKS"))
    options = parser.parse_args()
    ways = options.ways or WAYS
    if options.profile:
        for way in ways:
            profiled((way, *options.profile))
        return 0
    found: dict[Case, float] = {}
    for way in ways:
        for chunks in CHUNKS:
            for neighbours in (FEW, MANY):
                case = way, neighbours, chunks
                costs = [us_per_chunk(case, seed) for seed in range(1, options.rounds + 1)]
                found[case] = statistics.median(costs)
                print(
                    f"{way:6} {neighbours:3} neighbours {chunks:6,} chunks"
                    f"  {found[case]:6.1f} us/chunk  ({min(costs):.1f} to {max(costs):.1f})",
                    flush=True,
                )
    figures = {
        "python": platform.python_version(),
        "us_per_chunk": {" ".join(map(str, case)): us for case, us in found.items()},
    }
    targets = [
        Target("sim.core_us_per_chunk", max(found.values()), "<=", US_PER_CHUNK_MAX),
        Target("sim.core_growth", max(growths(found)), "<=", GROWTH_MAX),
    ]
    return 0 if publish(targets, figures, OUT) else 1


def growths(found: dict[Case, float]) -> list[float]:
    """From few neighbours to many, and from few chunks to many."""
    ratios = []
    for way, neighbours, chunks in found:
        cost = found[way, neighbours, chunks]
        if neighbours != FEW:
            ratios.append(cost / found[way, FEW, chunks])
        if chunks != CHUNKS[0]:
            ratios.append(cost / found[way, neighbours, CHUNKS[0]])
    return ratios


def us_per_chunk(case: Case, seed: int) -> float:
    """Of one run."""
    meter = Meter()
    gc.disable()  # what it costs depends on all that this process holds
    lab = lab_of(case, meter, seed)
    while lab.done < WARM_CHUNKS:
        lab.agenda.step()
    warm, meter.counted_ns = lab.done, 0
    while lab.done < WARM_CHUNKS + MEASURED_CHUNKS:
        lab.agenda.step()
    gc.enable()
    return meter.counted_ns / 1000 / (lab.done - warm)


def profiled(case: Case) -> None:
    """Print where the time of one run goes."""
    profile = Profile()
    lab = lab_of(case, Meter(profile), 1)
    while lab.done < WARM_CHUNKS:
        lab.agenda.step()
    profile.clear()
    while lab.done < WARM_CHUNKS + MEASURED_CHUNKS:
        lab.agenda.step()
    pstats.Stats(profile).sort_stats("tottime").print_stats(28)


def lab_of(case: Case, meter: Meter, seed: int) -> Pull | Serve:
    way, neighbours, chunks = case
    content = Content()
    # As long as a blob of so many chunks is in truth: from 4,096 on chunks become larger first.
    chunk_bytes = CHUNK_SIZE_MAX_BYTES if chunks > CHUNK_COUNT_GOAL else 256 * 1024
    blob = content.add("layer", chunks * chunk_bytes)
    assert blob.geometry.chunk_count == chunks
    if way == "pull":
        return Pull(blob, content, meter, neighbours=neighbours, seed=seed)
    is_proxy = way == "seed"
    return Serve(blob, content, meter, neighbours=neighbours, seed=seed, is_proxy=is_proxy)


if __name__ == "__main__":
    sys.exit(main())
