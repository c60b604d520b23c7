"""Settings as JSON: what `config show -o json` prints and what a daemon tells at its admin port.

Secrets are not in it: settings name the files that hold them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from p2pdist.errors import ConfigError
from p2pdist.settings import SECTIONS, TABLES, Leaf, Settings, leaves_of, show

SCHEMA_VERSION: Final = 1
TABLES_MAX: Final = 4096
"""More entries of one kind than anybody configures."""


def as_json(settings: Settings, origins: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Every value as the file would hold it; with `origins`, also where it comes from."""
    values: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for section, record in SECTIONS.items():
        table = values[section] = {}
        for leaf in leaves_of(section, record):
            value = show(getattr(getattr(settings, section), leaf.key))
            if origins is not None:
                value = {"value": value, "origin": origins.get(leaf.name, "default")}
            table[leaf.key] = value
    for name, record in TABLES.items():
        fields = [leaf.key for leaf in leaves_of(name, record)]
        values[name] = [{k: show(getattr(t, k)) for k in fields} for t in getattr(settings, name)]
    return values


def parse_settings(body: bytes) -> Settings:
    """Read what `as_json` gave; raise ConfigError for anything else.

    A daemon of another version may have settings that we do not know, and lack some that we do.
    """
    try:
        document = json.loads(body)
        sections: dict[str, Any] = {
            section: record(**_values(document.get(section, {}), section, record))
            for section, record in SECTIONS.items()
        }
        tables: dict[str, Any] = {
            name: tuple(
                record(**_values(table, name, record)) for table in document[name][:TABLES_MAX]
            )
            for name, record in TABLES.items()
            if name in document
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"no settings of a daemon: {error}") from None
    return Settings(**sections, **tables)


def _values(table: Mapping[str, Any], section: str, record: type[Any]) -> dict[str, Any]:
    known: dict[str, Leaf] = {leaf.key: leaf for leaf in leaves_of(section, record)}
    return {key: known[key].kind.parse(raw) for key, raw in table.items() if key in known}
