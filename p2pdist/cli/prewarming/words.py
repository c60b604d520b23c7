"""Reads what an operator types: moments, shares, waves, lists of images. Raises ValueError."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from p2pdist.model.jobs import IMAGES_MAX, WAVES_MAX
from p2pdist.settings_kinds import parse_duration, parse_rate

AHEAD_MAX_S: Final = 366 * 86400.0
# A clock that is a little behind makes no `--at` of a script a mistake.
PAST_MAX_S: Final = 60.0
LIST_BYTES_MAX: Final = 1 << 20
# Whoever means less has left the unit out.
RATE_MIN: Final = 1000

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d.*")
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")


def parse_moment(text: str, base_unix_s: float, now_unix_s: float) -> float:
    """Return Unix seconds: `+30m` and `30m` count from the base, `2026-11-24T22:00` is local time
    unless it names its zone."""
    text = text.strip()
    if _MOMENT.fullmatch(text):
        try:
            moment_s = datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError, OSError):
            raise ValueError(f"{text!r} is no time, such as 2026-11-24T22:00") from None
    else:
        try:
            moment_s = base_unix_s + parse_duration(text.removeprefix("+"))
        except ValueError:
            raise ValueError(
                f"{text!r} is neither a duration, such as +30m, nor a time, such as "
                "2026-11-24T22:00 or 2026-11-24T22:00+01:00"
            ) from None
    if moment_s < now_unix_s - PAST_MAX_S:
        raise ValueError(f"{text} is over")
    if moment_s > now_unix_s + AHEAD_MAX_S:
        raise ValueError(f"{text} is more than a year ahead")
    return moment_s


def parse_share(text: str) -> float:
    """Read `99%` or `0.99`; 0 and 1 are in."""
    match = _PERCENT.fullmatch(text.strip())
    try:
        share = float(match[1]) / 100 if match else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is no share, such as 99% or 0.99")
    return share


def parse_waves(text: str) -> list[float]:
    """Read `1%,10%,100%`."""
    waves = [parse_share(part) for part in text.split(",")]
    if waves[0] == 0 or waves != sorted(set(waves)):
        raise ValueError(f"{text!r}: waves are growing shares above 0, such as 1%,10%,100%")
    if waves[-1] != 1:
        raise ValueError(
            f"{text!r}: the last wave is 100% of the chosen hosts; "
            f"for {text.rpartition(',')[2]} of them in all, say so with --hosts"
        )
    if len(waves) > WAVES_MAX:
        raise ValueError(f"at most {WAVES_MAX} waves")
    return waves


def listed_images(text: str) -> list[str]:
    """Return the references of a list: one a line, `#` starts a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def parse_limit(text: str) -> int:
    """Read bytes per second, 0 for no limit; raise ValueError for a number without its unit."""
    rate = parse_rate(text)
    if 0 < rate < RATE_MIN:
        raise ValueError(f"{text!r} is {rate} bytes a second; with a unit: {rate}MB/s")
    return rate


def check_count(images: list[str]) -> list[str]:
    """Return them without repetition."""
    images = list(dict.fromkeys(images))
    if not images:
        raise ValueError("no image is named")
    if len(images) > IMAGES_MAX:
        raise ValueError(f"{len(images)} images: a job has at most {IMAGES_MAX}, split the list")
    return images
