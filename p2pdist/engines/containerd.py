"""containerd: a hosts.toml for all registries, and `config_path` where that is not set yet."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import tomlkit

from p2pdist.engines import early_starts, toml_blocks, toml_text
from p2pdist.engines.early_starts import Version, told_version
from p2pdist.engines.options import Options
from p2pdist.engines.targets import Plan, Target
from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree

CONFIG: Final = "/etc/containerd/config.toml"
CERTS_D: Final = "/etc/containerd/certs.d"
# Where the CRI plugin keeps its registries, by the version of the configuration file.
REGISTRY_TABLES: Final = {
    2: ("plugins", "io.containerd.grpc.v1.cri", "registry"),
    3: ("plugins", "io.containerd.cri.v1.images", "registry"),
}
BEGIN: Final = "# p2pdist: the peer of this host first; `p2pdist runtime uninstall` takes it out\n"
END: Final = "# p2pdist: end\n"
_EMPTY_CONFIG_PATH: Final = re.compile(r"\s*config_path\s*=\s*(\"\"|'')\s*(#.*)?\r?\n?$")
_BLOCK: Final = re.compile(
    # Whole lines: a value may have the words of a mark in it.
    rf"^{re.escape(BEGIN.rstrip())}\r?\n.*?^{re.escape(END.rstrip())}(?:\r?\n|\Z)",
    re.DOTALL | re.MULTILINE,
)


class Containerd:
    name = "containerd"

    def __init__(self, version_of: Callable[[str, Options], Version | None] = told_version) -> None:
        """`version_of` a program: what this host's containerd says that it is."""
        self._version_of = version_of

    def plan(self, options: Options) -> Plan:
        config_file = options.path(CONFIG)
        config = _read(options.tree, config_file)
        held = _config_path(config, config_file)
        certs_d = options.path(held or CERTS_D)
        notes = [] if held else [RESTART_NOTE]
        if options.early is not None:
            new = not early_starts.in_containerd(config, options.early)
            notes = [early_starts.RESTART_CONTAINERD] if new else notes
            notes += [IMPORTS_NOTE] if config.get("imports") else []
        targets = [self._config_target(config_file, options)]
        for directory in [certs_d / "_default", *_hosts(options.tree, certs_d)]:
            is_there = options.tree.status(directory / "hosts.toml") is not None
            if directory.name != "_default" and not is_there:
                notes.append(f"{directory} has no hosts.toml: its registry is pulled directly")
                continue
            targets.append(_hosts_target(directory / "hosts.toml", options))
        how = "hosts.toml is read at every pull: nothing is restarted"
        return Plan(targets, lambda: how, how, notes)

    def _config_target(self, path: Path, options: Options) -> Target:
        def add(before: bytes | None) -> bytes:
            if (early := options.early) is None:
                return add_config_path(before, path)
            config = toml_text.parse(before or b"", path)
            version = self._version_of("containerd", options)
            form = early_starts.check_containerd(config, version, path)
            text = add_config_path(before, path, form).decode()
            return early_starts.add_to_containerd(text, early, path).encode()

        def remove(now: bytes) -> bytes | None:
            # Without early starts of its own, those that are there are somebody else's.
            text = now if options.early is None else remove_early(now, path)
            return remove_config_path(text, path)

        return Target(path, add, remove)

    def shown(self, options: Options) -> Sequence[Target]:
        """Each hosts.toml, and config.toml by its blocks; a config_path may be anybody's, and does
        nothing alone."""
        directories: list[Path] = []
        for place in sorted(self._certs_ds(options)):
            directories += [place / "_default", *_hosts(options.tree, place)]
        config_file = options.path(CONFIG)
        config = Target(
            config_file,
            self._config_target(config_file, options).add,
            lambda now: remove_early(now, config_file),
            marked=toml_blocks.marked,
        )
        hosts = (_hosts_target(directory / "hosts.toml", options) for directory in directories)
        return [config, *hosts]

    def writes(self, path: Path, options: Options) -> bool:
        if path == options.path(CONFIG):
            return True
        return path.name == "hosts.toml" and path.parent.parent in self._certs_ds(options)

    def _certs_ds(self, options: Options) -> set[Path]:
        config_file = options.path(CONFIG)
        places = {options.path(CERTS_D)}
        with contextlib.suppress(ConfigError):  # broken since: the default place is known anyway
            if held := _config_path(_read(options.tree, config_file), config_file):
                places.add(options.path(held))
        return places


RESTART_NOTE: Final = (
    "config_path is new in config.toml: restart containerd once, when it suits you "
    "(containers go on running); until then nothing changes"
)

IMPORTS_NOTE: Final = (
    "config.toml imports other files, and what these say counts: `p2pdist doctor --role "
    "snapshotter` reads them too"
)


def add_config_path(before: bytes | None, path: Path, form: int = 2) -> bytes:
    """Return config.toml with `config_path`; raise ConfigError where no edit can be sure. `form`:
    the version that an empty file gets."""
    config = toml_text.parse(before or b"", path)
    if before is None or not config:  # at most comments
        text = (before or b"").decode().removeprefix(toml_text.BOM)
        head = _header(REGISTRY_TABLES[form])
        fresh = f'version = {form}\n\n{head}\n  config_path = "{CERTS_D}"\n'
        return toml_text.insert_before(text, len(toml_text.lines_of(text)), fresh).encode()
    if _config_path(config, path):
        return before
    table = REGISTRY_TABLES[config["version"]]
    wanted = toml_text.with_value(config, [*table, "config_path"], CERTS_D)
    for edited in _with_config_path(before.decode(), table):
        try:
            if toml_text.parse(edited.encode(), path) == wanted:
                return edited.encode()
        except ConfigError:
            continue  # a table that is defined twice that way
    raise _by_hand(path, table)


def _with_config_path(text: str, table: tuple[str, ...]) -> Iterator[str]:
    """Ways to set it: in the place of an empty one, under the table's header, in a new table."""
    entry = f'  config_path = "{CERTS_D}"\n'
    lines = toml_text.lines_of(text)
    header = _line_after_header(text, table)
    if header is not None:
        if (old := _line_of_key(text, header)) is not None:
            line = entry.replace("\n", toml_text.newline_of(text))
            yield "".join([*lines[:old], line, *lines[old + 1 :]])
        yield toml_text.insert_before(text, header, entry)
    yield toml_text.insert_before(text, len(lines), f"\n{_header(table)}\n{entry}")


def remove_config_path(now: bytes, path: Path) -> bytes | None:
    """Take our line out of a config.toml that was edited since."""
    toml_text.parse(now, path)
    text = now.decode()
    lines = [
        line for line in toml_text.lines_of(text) if line.strip() != f'config_path = "{CERTS_D}"'
    ]
    edited = "".join(lines).encode()
    toml_text.parse(edited, path)
    return edited


def remove_early(now: bytes, path: Path) -> bytes:
    """Take the blocks of early starts out."""
    toml_text.parse(now, path)
    edited = toml_blocks.without_blocks(now.decode()).encode()
    toml_text.parse(edited, path)
    return edited


def add_host(before: bytes | None, options: Options, path: Path) -> bytes:
    """Return hosts.toml with the mirror as its first host."""
    block = BEGIN + _host_block(options) + END
    if before is None or not before.decode(errors="replace").strip(toml_text.SPACE):
        return block.encode()
    own_free = remove_host(before, path) or b""
    document = toml_text.parse(own_free, path)
    text = own_free.decode()
    lines = toml_text.lines_of(text)
    headers = (i for i, line in enumerate(lines) if line.lstrip().startswith("["))
    edited = toml_text.insert_before(text, next(headers, len(lines)), block)
    held = document.get("host", {})
    hosts = {options.mirror: _host_table(options), **(held if isinstance(held, dict) else {})}
    try:
        parsed = toml_text.parse(edited.encode(), path)
    except ConfigError:
        parsed = {}
    first = next(iter(parsed.get("host", {})), None)
    if parsed != {**document, "host": hosts} or first != options.mirror:
        raise ConfigError(
            f"{path} is written in a way that cannot be added to; put this at its top:\n"
            f"{_host_block(options)}"
        )
    return edited.encode()


def remove_host(now: bytes, path: Path) -> bytes | None:
    """Take our block out; None when nothing else is in the file."""
    toml_text.parse(now, path)
    edited = _BLOCK.sub("", now.decode())
    return edited.encode() if edited.strip() else None


def _host_block(options: Options) -> str:
    hosts = tomlkit.table(is_super_table=True)  # a [host] of its own might stand there already
    hosts[options.mirror] = _host_table(options)
    return tomlkit.dumps({"host": hosts})


def _host_table(options: Options) -> dict[str, Any]:
    capabilities = ["pull"] if options.tags_from_origin else ["pull", "resolve"]
    return {"capabilities": capabilities, "dial_timeout": "1s"}


def _hosts_target(path: Path, options: Options) -> Target:
    return Target(
        path,
        lambda before: add_host(before, options, path),
        lambda now: remove_host(now, path),
        marked=lambda now: _BLOCK.search(now.decode(errors="replace")) is not None,
    )


def _hosts(tree: Tree, certs_d: Path) -> list[Path]:
    return [p for p in tree.listed(certs_d) if p.name != "_default" and tree.is_dir(p)]


def _read(tree: Tree, path: Path) -> dict[str, Any]:
    raw = tree.read(path)
    return toml_text.parse(raw, path) if raw is not None else {}


def _config_path(config: dict[str, Any], path: Path) -> str | None:
    """The directory that is set; raise ConfigError where one could not be used."""
    if not config:
        return None
    version = config.get("version")
    if not isinstance(version, int) or version not in REGISTRY_TABLES:
        raise ConfigError(
            f"{path} has version {version or 1}: registries need version 2 or 3; "
            "`containerd config migrate` or `containerd config default` makes one"
        )
    registry = toml_text.get(config, REGISTRY_TABLES[version])
    if registry is None:
        return None
    if not isinstance(registry, dict):
        raise _by_hand(path, REGISTRY_TABLES[version])
    for key in ("mirrors", "configs"):
        if registry.get(key):
            raise ConfigError(
                f"{path} has registry.{key}: the CRI plugin refuses config_path beside it and "
                f"would not start; move its entries to {CERTS_D}/HOST/hosts.toml first"
            )
    held = registry.get("config_path")
    return str(held).split(":")[0] if held else None


def _header(table: tuple[str, ...]) -> str:
    first, plugin, last = table
    return f'[{first}."{plugin}".{last}]'


def _line_after_header(text: str, table: tuple[str, ...]) -> int | None:
    for number, line in enumerate(toml_text.lines_of(text)):
        if toml_text.header_path(line) == list(table):
            return number + 1
    return None


def _line_of_key(text: str, start: int) -> int | None:
    """The line of an empty `config_path` in the table that begins at line `start`."""
    for number, line in enumerate(toml_text.lines_of(text)[start:], start):
        if line.lstrip().startswith("["):
            return None
        if _EMPTY_CONFIG_PATH.match(line):
            return number
    return None


def _by_hand(path: Path, table: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f'{path} is written in a way that cannot be added to; put config_path = "{CERTS_D}" '
        f"into {_header(table)} by hand"
    )
