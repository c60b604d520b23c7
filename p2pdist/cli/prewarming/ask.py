"""Turns the options of `p2pdist prewarm` into what a tracker is asked."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from p2pdist.cli.prewarming import words
from p2pdist.model.jobs import PIN_MAX_S, JobImage, JobSpec
from p2pdist.oci.reference import Reference, parse_reference
from p2pdist.settings_kinds import parse_duration

HOSTS_TEXT_MAX: Final = 4096

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was typed, read and checked; images are named, not yet resolved."""

    references: Sequence[Reference]
    spec: JobSpec
    """Without its images."""

    def filled(self, images: Sequence[JobImage], run: str) -> JobSpec:
        """Return the job of a run. The run's name is its key: a repetition makes no second job."""
        note = f"{who()} {run}"
        return msgspec.structs.replace(self.spec, images=list(images), key=f"cli {run}", note=note)


def who() -> str:
    """`cli deploy@build-7`, cut to what a note has room for."""
    name = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"
    return f"cli {name}@{socket.gethostname()}"[:200]


def read_wish(
    images: Sequence[str],
    *,
    hosts: str,
    dcs: Sequence[str],
    platform: str,
    at: str,
    deadline: str,
    rate: str,
    dc_rate: str,
    waves: str,
    wave_gate: str,
    priority: int,
    pin: str,
    into_runtime: bool,
    now_unix_s: float,
) -> Wish:
    """Check all of it; raise ValueError that names the option at fault."""
    named = [parse_reference(image) for image in words.check_count(list(images))]
    # `app` and `docker.io/library/app:latest` are one image.
    references = list({(one.name, one.target): one for one in named}.values())
    if len(hosts) > HOSTS_TEXT_MAX or not hosts.strip():
        raise ValueError("--hosts: a selector, such as web-* or role=web,10%")
    if platform and (len(parts := platform.split("/")) not in (2, 3) or not all(parts)):
        raise ValueError(f"--platform: {platform!r} is no platform, such as linux/arm64")
    at_s = 0.0
    if at:
        at_s = _option("--at", words.parse_moment, at, now_unix_s, now_unix_s)
    base_s = max(at_s, now_unix_s)
    deadline_s = 0.0
    if deadline:
        deadline_s = _option("--deadline", words.parse_moment, deadline, base_s, now_unix_s)
        if deadline_s <= base_s:
            raise ValueError("--deadline: it is before the start")
    pin_s = _option("--pin", parse_duration, pin)
    if pin_s > PIN_MAX_S:
        raise ValueError("--pin: at most 366d")
    spec = JobSpec(
        [],
        hosts=hosts.strip(),
        dcs=list(dict.fromkeys(dcs)),
        platform=platform,
        at_unix_s=at_s,
        deadline_unix_s=deadline_s,
        rate=_option("--rate", words.parse_limit, rate) if rate else 0,
        dc_rate=_option("--dc-rate", words.parse_limit, dc_rate) if dc_rate else 0,
        waves=_option("--waves", words.parse_waves, waves),
        wave_gate=_option("--wave-gate", words.parse_share, wave_gate),
        priority=priority,
        pin_s=pin_s,
        into_runtime=into_runtime,
    )
    return Wish(references, spec)


def _option(name: str, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return read(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def image_list(path: Path) -> list[str]:
    """Return the references of a file, `-` for stdin. Raises ValueError, OSError."""
    stream = sys.stdin.buffer if str(path) == "-" else path.open("rb")
    with stream:
        data = stream.read(words.LIST_BYTES_MAX + 1)
    if len(data) > words.LIST_BYTES_MAX:
        raise ValueError(f"--file: {path} is longer than {words.LIST_BYTES_MAX} bytes")
    try:
        return words.listed_images(data.decode())
    except UnicodeDecodeError:
        raise ValueError(f"--file: {path} is no text") from None
