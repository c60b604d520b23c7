"""How the value of a setting is read and checked, from file, variable or flag alike."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pdist.model.control_wire import parse_tracker_url
from p2pdist.model.members import Address
from p2pdist.model.private_places import IpNetwork, PrivatePlace, parse_private_place
from p2pdist.oci.base_url import check_base_url, check_origin_url, check_registry_host

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_LABEL: Final = re.compile(r"[A-Za-z0-9._/-]{1,63}=[A-Za-z0-9._:/-]{0,127}")
LABELS_MAX: Final = 64
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_POWERS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read: `parse` takes what the file holds or a string; raises ValueError."""

    name: str
    parse: Callable[[Any], Any]
    is_list: bool = False
    """Values in a list; a text that holds them is parted by commas."""
    choices: tuple[str, ...] = ()

    @property
    def metavar(self) -> str:
        """What a flag takes, as its help shows it: choices as they are written, all else in
        capitals."""
        if self.choices:
            return "|".join(filter(None, self.choices))
        name = self.name.upper()
        return f"{name.removeprefix('LIST OF ').removesuffix('S')}[,...]" if self.is_list else name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    """A list as a file holds it, a text with commas, or several of those, as flags give them."""
    if isinstance(value, str):
        value = (value,)
    elif isinstance(value, list):
        return tuple(map(_text, value))
    if not isinstance(value, tuple):
        raise ValueError("expected a list of texts")
    parts = (part.strip() for text in value for part in _text(text).split(","))
    return tuple(part for part in parts if part)


def _check_tracker(text: str) -> None:
    parse_tracker_url(text)


def _checked_texts(check: Callable[[str], None]) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        texts = _texts(value)
        for text in texts:
            check(text)
        return texts

    return parse


def _checked(check: Callable[[str], None]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if text := _text(value):
            check(text)
        return text

    return parse


def _private_places(value: Any) -> tuple[PrivatePlace, ...]:
    if isinstance(value, bool):
        raise ValueError('name the hosts or networks, such as ["10.0.0.0/8"]')
    return tuple(parse_private_place(text) for text in _texts(value))


def _networks(value: Any) -> tuple[IpNetwork, ...]:
    if isinstance(value, bool):
        raise ValueError('name the networks, such as ["10.0.0.0/8"]')
    return tuple(ipaddress.ip_network(text) for text in _texts(value))


def _tls_hosts(value: Any) -> tuple[Address, ...]:
    if isinstance(value, bool):
        raise ValueError('name the hosts, such as ["registry.corp:5443"]')
    return tuple(
        parse_address(text if text.rpartition("]")[2].count(":") else f"{text}:443")
        for text in _texts(value)
    )


def _path(value: Any) -> Path | None:
    return Path(_text(value)).expanduser() if value else None


def parse_address(value: Any) -> Address:
    """Read `host:port` or `[v6]:port`; raise ValueError for anything else."""
    host, colon, port = _text(value).rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port, such as 127.0.0.1:5300")
    return Address(host.strip("[]"), int(port))


def _addresses(value: Any) -> tuple[Address, ...]:
    return tuple(parse_address(part) for part in _texts(value))


def parse_size(value: Any) -> int:
    """Read bytes: a number, or `50GB`, `20GiB`; raise ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a size, such as 50GB or 20GiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** _POWERS[match[2]])


def _room(value: Any) -> int:
    if (nbytes := parse_size(value)) == 0:
        raise ValueError("expected a size above 0, such as 50GB")
    return nbytes


def parse_rate(value: Any) -> int:
    """Read bytes per second: a number, or `100MB/s`; raise ValueError for anything else."""
    try:
        return parse_size(value.removesuffix("/s") if isinstance(value, str) else value)
    except ValueError:
        raise ValueError("expected a rate, such as 100MB/s") from None


def parse_duration(value: Any) -> float:
    """Read seconds: a number, or `500ms`, `30s`, `5m`, `1h`, `1d`; raise ValueError otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("expected a duration, such as 30s or 24h")
        seconds = float(match[1]) * _SECONDS[match[2] or ""]
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("expected a duration of 0 or more")
    return seconds


def _ratio(value: Any) -> float:
    try:
        ratio = float(value)
    except (TypeError, ValueError):
        ratio = -1.0
    if not 0 < ratio <= 1:
        raise ValueError("expected a share above 0 and at most 1")
    return ratio


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError("expected true or false")
    return known[value.lower()]


def _whole(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, (int, str)) else None
    except ValueError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError("expected a whole number")
    return number


def _count(value: Any) -> int:
    if (number := _whole(value)) < 1:
        raise ValueError("expected a whole number of 1 or more")
    return number


def _labels(value: Any) -> tuple[str, ...]:
    labels = _texts(value)
    for label in labels:
        if _LABEL.fullmatch(label) is None:
            raise ValueError(f"expected key=value without spaces, not {label!r}")
    if len(labels) > LABELS_MAX:
        raise ValueError(f"at most {LABELS_MAX} labels")
    return labels


def choice(*allowed: str) -> Kind:
    def parse(value: Any) -> str:
        named = value.lower() if isinstance(value, str) else None
        if named not in allowed:
            raise ValueError(f"expected one of {', '.join(map(repr, allowed))}")
        return str(named)

    return Kind(" | ".join(allowed), parse, choices=allowed)


TEXT: Final = Kind("text", _text)
TEXTS: Final = Kind("list of texts", _texts, is_list=True)
PRIVATE_PLACES: Final = Kind("list of host or network[:port]", _private_places, is_list=True)
NETWORKS: Final = Kind("list of networks", _networks, is_list=True)
TLS_HOSTS: Final = Kind("list of host[:port]", _tls_hosts, is_list=True)
HOST: Final = Kind("registry host", _checked(check_registry_host))
HOSTS: Final = Kind("list of hosts", _checked_texts(check_registry_host), is_list=True)
URL: Final = Kind("URL", _checked(check_base_url))
URLS: Final = Kind("list of URLs", _checked_texts(check_base_url), is_list=True)
PROXIES: Final = Kind("list of http://host:port", _checked_texts(check_origin_url), is_list=True)
TRACKERS: Final = Kind("list of tcp://host:port", _checked_texts(_check_tracker), is_list=True)
LABELS: Final = Kind("list of key=value", _labels, is_list=True)
PATH: Final = Kind("path", _path)
ADDRESS: Final = Kind("host:port", parse_address)
ADDRESSES: Final = Kind("list of host:port", _addresses, is_list=True)
ROOM: Final = Kind("size above 0", _room)
RATE: Final = Kind("bytes/s", parse_rate)
DURATION: Final = Kind("duration", parse_duration)
RATIO: Final = Kind("share", _ratio)
WHOLE: Final = Kind("whole number", _whole)
COUNT: Final = Kind("number above 0", _count)
FLAG: Final = Kind("true | false", _flag, choices=("true", "false"))
