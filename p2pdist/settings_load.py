"""Settings from default < file < `P2PDIST_*` variables < flags, with the origin of each value."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pdist.errors import ConfigError
from p2pdist.settings import SECTIONS, TABLES, Leaf, Settings, all_leaves, leaves_of

DEFAULT_FILE: Final = Path("/etc/p2pdist/config.toml")
PREFIX: Final = "P2PDIST_"
# Variables of ours that are no settings.
OTHER_VARIABLES: Final = frozenset(
    {
        "P2PDIST_CONFIG",
        "P2PDIST_ENDPOINT",
        "P2PDIST_TRACKERS",  # of the verbs about jobs
        "P2PDIST_IDENTITY",
        "P2PDIST_ADMIN_PORT",  # of the container image's health check
        "P2PDIST_REQUIRE_E2E",
        "P2PDIST_DEMO_STARTED",
        "P2PDIST_FAIL",
        "P2PDIST_FAILPOINTS",
        "P2PDIST_FAULTS_DIR",
        "P2PDIST_SLOW_FAULTS",
    }
)

_FILE_HINT: Final = "name a file with --config; `p2pdist config init` prints one to start from"
_TOML_HINT: Final = (
    'texts stand in quotes and lists in brackets: trackers = ["tcp://10.0.0.2:5200"]'
)
_REQUIRED: Final = {"upstream": ("host",), "replicate": ("name", "images")}


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    origins: dict[str, str]
    """`section.key` -> where its value came from; defaults are not in it."""


class _Reader:
    """Collects values and all that is wrong with them, so that one run names every fault."""

    def __init__(self) -> None:
        self.leaves = {leaf.name: leaf for leaf in all_leaves()}
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.tables: dict[str, list[Any]] = {}
        self.faults: list[str] = []

    def put(self, leaf: Leaf, raw: Any, origin: str) -> None:
        try:
            self.values[leaf.name] = leaf.kind.parse(raw)
        except ValueError as error:
            given = ",".join(raw) if isinstance(raw, tuple) else raw  # of a flag that is repeated
            self.faults.append(f"{origin}: {leaf.name} = {given!r}: {error}")
        else:
            self.origins[leaf.name] = origin

    def unknown(self, what: str, known: list[str], origin: str) -> None:
        near = difflib.get_close_matches(what, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.faults.append(f"{origin}: unknown setting {what}{hint}")

    # --- the file -------------------------------------------------------------------------------

    def file(self, path: Path) -> None:
        try:
            document = tomllib.loads(path.read_text())
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ConfigError(f"{path}: {why}", hint=_FILE_HINT) from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is no text in UTF-8: {error}", hint=_FILE_HINT) from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{path} is no TOML: {error}", hint=_TOML_HINT) from None
        for section, table in document.items():
            if section in TABLES:
                self._repeated(section, table, path)
            elif section not in SECTIONS:
                self.unknown(f"[{section}]", [f"[{s}]" for s in (*SECTIONS, *TABLES)], str(path))
            elif not isinstance(table, dict):
                self.faults.append(f"{path}: [{section}] must be a table")
            else:
                self._table(section, table, path)

    def _table(self, section: str, table: dict[str, Any], path: Path) -> None:
        for key, raw in table.items():
            leaf = self.leaves.get(f"{section}.{key}")
            if leaf is None:
                self.unknown(f"{section}.{key}", list(self.leaves), str(path))
            else:
                self.put(leaf, raw, str(path))

    def _repeated(self, section: str, tables: Any, path: Path) -> None:
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self.faults.append(f"{path}: {section} must be written as [[{section}]]")
            return
        record = TABLES[section]
        known = {leaf.key: leaf for leaf in leaves_of(section, record)}
        found = self.tables.setdefault(section, [])
        for number, table in enumerate(tables, 1):
            values: dict[str, Any] = {}
            for key, raw in table.items():
                if key not in known:
                    names = [f"{section}.{k}" for k in known]
                    self.unknown(f"{section}.{key}", names, str(path))
                    continue
                try:
                    values[key] = known[key].kind.parse(raw)
                except ValueError as error:
                    self.faults.append(f"{path}: {section} {number}: {key} = {raw!r}: {error}")
            for key in _REQUIRED[section]:
                if key not in table or table[key] in ("", []):
                    self.faults.append(f"{path}: {section} {number} has no {key}")
            found.append(record(**values))

    # --- variables and flags --------------------------------------------------------------------

    def variables(self, environ: Mapping[str, str]) -> None:
        known = {leaf.variable: leaf for leaf in self.leaves.values()}
        for name, raw in environ.items():
            if name in known:
                self.put(known[name], raw, f"variable {name}")
            elif name.startswith(PREFIX) and name not in OTHER_VARIABLES:
                self._unknown_variable(name, known)

    def _unknown_variable(self, name: str, known: Mapping[str, Leaf]) -> None:
        """What all of them begin with makes none of them near."""
        rests = [variable.removeprefix(PREFIX) for variable in known]
        near = difflib.get_close_matches(name.removeprefix(PREFIX), rests, n=1, cutoff=0.6)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        self.faults.append(f"environment: unknown setting {name}{hint}")

    def flags(self, flags: Mapping[str, Any]) -> None:
        for name, raw in flags.items():
            leaf = self.leaves[name]
            self.put(leaf, raw, f"flag {leaf.flag}")

    def result(self) -> Loaded:
        if self.faults:
            hint = "`p2pdist config init` prints every setting, its meaning and its default"
            raise ConfigError("\n".join(self.faults), hint=hint)
        sections: dict[str, Any] = {}
        for section, record in SECTIONS.items():
            given = {
                name.partition(".")[2]: value
                for name, value in self.values.items()
                if name.startswith(f"{section}.")
            }
            sections[section] = record(**given)
        sections |= {name: tuple(found) for name, found in self.tables.items() if found}
        return Loaded(Settings(**sections), self.origins)


def load_settings(
    config: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Load all settings; raise ConfigError that lists everything that is wrong.

    `config`: the file, which must exist; None: `P2PDIST_CONFIG`, else `/etc/p2pdist/config.toml`
    if it is there. `flags`: by `section.key`.
    """
    environ = os.environ if environ is None else environ
    reader = _Reader()
    for path in _files(config, environ):
        reader.file(path)
    reader.variables(environ)
    reader.flags(flags or {})
    return reader.result()


def _files(config: Path | None, environ: Mapping[str, str]) -> list[Path]:
    if config is None and environ.get("P2PDIST_CONFIG"):
        config = Path(environ["P2PDIST_CONFIG"])
    if config is None:
        if not DEFAULT_FILE.exists():
            return []
        config = DEFAULT_FILE
    if config.name != DEFAULT_FILE.name:  # any other file lies among things of all kinds
        return [config]
    return [config, *sorted((config.parent / "conf.d").glob("*.toml"))]
