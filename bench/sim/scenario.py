"""What is simulated: a small TOML file, checked as it is read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from p2pdist.model.statements import BATCH_HASHES_MAX

HERE: Final = Path(__file__).parent / "scenarios"

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]

MIB: Final = 1 << 20


class Wave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts that pull, and when."""

    hosts: _Count
    within_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """They begin at random moments of so many seconds."""
    reads_mb_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Each reads in order at this rate; 0: as fast as it comes."""
    leaves: bool = False
    """When it has all."""


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the hosts that pull, each picked by chance."""

    killed: _Share = 0.0
    """Somewhere in the middle of their pull."""
    slow: _Share = 0.0
    """At a tenth of the speed."""
    liars: _Share = 0.0
    """What they send is wrong."""
    tracker_killed_at_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """0: not at all."""
    tracker_back_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """So long after that they are back, and know nothing; 0: never."""
    tracker_of_one: bool = False
    """Of the first datacenter alone; else all."""
    proxy_killed_at_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """One of the first datacenter; 0: not at all."""
    wan_cut_at_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """From then on nothing passes between the first datacenter and the others; 0: not at all."""
    wan_cut_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """For so long."""


class UpstreamFaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the bodies that are asked for, each picked by chance."""

    errors: _Share = 0.0
    """An error comes instead."""
    cut: _Share = 0.0
    """It breaks off somewhere."""
    stalled: _Share = 0.0
    """It stands still somewhere, until it is given up."""
    slow: _Share = 0.0
    """At a tenth of the speed."""
    no_ranges: bool = False
    """Whoever asks for the rest gets all of it."""
    end_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """From then on nothing goes wrong."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rates are payload, in megabits per second; times are seconds."""

    about: str
    waves: list[Wave]
    layers: list[_Positive]
    """Sizes in MiB."""
    host_mbit: _Positive
    seed_mbit: _Positive
    seeds: _Count = 1
    seed_kind: Literal["proxy", "peer"] = "proxy"
    """Who has it: proxies, each the blobs that it owns; or one proxy, and hosts like the others."""
    latency_ms: _Positive = 0.25
    """One way, within a datacenter."""
    datacenters: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    """Each has a tracker, its share of the hosts and so many seeds."""
    wan_mbit: _Positive = 10_000
    """Of the link of a datacenter to the others, each way."""
    wan_latency_ms: _Positive = 30.0
    """One way, between datacenters."""
    upstream_mbit: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Of the registry from which proxies read what nobody has yet; 0: the seeds have it all."""
    upstream_latency_ms: _Positive = 10.0
    upstream_faults: UpstreamFaults = UpstreamFaults()
    layers_at_once: _Count = 3
    chunks_per_record: Annotated[int, msgspec.Meta(ge=1, le=BATCH_HASHES_MAX)] = BATCH_HASHES_MAX
    """Of maps that seeds have from before; a proxy that read slowly signed one for each chunk."""
    cores: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Of the machine that all hosts are processes of; 0: each has what it needs."""
    cpu_s_per_gb: _Positive = 1.0
    """What all processes together take of these cores for each GB that a host receives."""
    faults: Faults = Faults()
    byte_stands_for: _Positive = 1.0
    """See `shrunk`."""

    @property
    def size_bytes(self) -> int:
        return round(sum(self.layers) * MIB)

    @property
    def hosts(self) -> int:
        return sum(wave.hosts for wave in self.waves)

    def shrunk(self, share: float) -> Scenario:
        """The same in as much time with fewer chunks: sizes and rates are smaller, and each byte
        costs what it stands for. Time constants of seconds keep their weight that way."""
        waves = [
            msgspec.structs.replace(wave, reads_mb_per_s=wave.reads_mb_per_s * share)
            for wave in self.waves
        ]
        return msgspec.structs.replace(
            self,
            waves=waves,
            layers=[mib * share for mib in self.layers],
            host_mbit=self.host_mbit * share,
            seed_mbit=self.seed_mbit * share,
            wan_mbit=self.wan_mbit * share,
            upstream_mbit=self.upstream_mbit * share,
            cpu_s_per_gb=self.cpu_s_per_gb / share,
            byte_stands_for=self.byte_stands_for / share,
        )

    def scaled(self, hosts: int) -> Scenario:
        """The same with so many hosts; waves keep their shares."""
        share = hosts / self.hosts
        waves = [
            msgspec.structs.replace(wave, hosts=max(1, round(wave.hosts * share)))
            for wave in self.waves
        ]
        return msgspec.structs.replace(self, waves=waves)


def load(name: str) -> Scenario:
    """Read one of `scenarios/`, or any file. Raises ValueError for what makes no sense, OSError."""
    path = Path(name) if name.endswith(".toml") else HERE / f"{name}.toml"
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}: {error}") from None


def names() -> list[str]:
    """Of all that are there."""
    return sorted(path.stem for path in HERE.glob("*.toml"))
