"""The reference page of all settings, made from their table."""

from __future__ import annotations

import json

from p2pdist.settings import SECTIONS, TABLES, Leaf, leaves_of, show

_INTRO = """# Configuration

Made from the table of settings: `python -m p2pdist.settings_page > docs/configuration.md`.

Values come from the defaults, then the file (`--config`, else `P2PDIST_CONFIG`, else
`/etc/p2pdist/config.toml`), then `conf.d/*.toml` beside a file that is called `config.toml`, then
variables, then flags; the later wins. An unknown key is an error that names the nearest one.
`p2pdist config show --origin` says where each value comes from, `p2pdist config verify` checks them
without starting a daemon, and `p2pdist config init` prints a file to start from.

A list is `["a", "b"]` in the file and `a,b` in a variable or flag; a flag may be repeated as well.
Sizes are numbers of bytes or texts such as `50GB` and `20GiB`; durations are seconds or texts such
as `500ms`, `30s` and `24h`. Secrets are read from files, which only their owner may read; they are
never a value, and never shown.
"""

_TABLES = {
    "upstream": """## [[upstream]]

One table for each registry that the proxies may read; Docker Hub is there while none is given.
Peers serve what their proxies list, and need no tables but for what they read themselves
(`peer.direct`). An upstream with credentials is served to others only with `access = "shared"`.
With `private`, credentials or not, a proxy hands out nothing, not even what it read before, and a
peer keeps what it reads itself to its host.
""",
    "replicate": """## [[replicate]]

One table for each rule of a registry proxy that keeps images in step: `docs/replication.md`.
""",
}


def render() -> str:
    """Return the page, in Markdown."""
    parts = [_INTRO]
    for section, record in SECTIONS.items():
        parts.append(f"## [{section}]\n")
        parts.append("| key | variable | flag | value | default | meaning |")
        parts.append("| --- | --- | --- | --- | --- | --- |")
        parts += [_row(leaf) for leaf in leaves_of(section, record)]
        parts.append("")
    for name, record in TABLES.items():
        parts += [_TABLES[name], "| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for leaf in leaves_of(name, record):
            parts.append(f"| `{leaf.key}` | {_kind(leaf)} | {_default(leaf)} | {leaf.help} |")
        parts.append("")
    return "\n".join(parts)


def _row(leaf: Leaf) -> str:
    names = f"| `{leaf.key}` | `{leaf.variable}` | `{leaf.flag}` "
    return f"{names}| {_kind(leaf)} | {_default(leaf)} | {leaf.help} |"


def _kind(leaf: Leaf) -> str:
    return leaf.kind.name.replace("|", "\\|")


def _default(leaf: Leaf) -> str:
    value = show(leaf.default)
    return f"`{json.dumps(value)}`" if value not in ("", []) else "none"


if __name__ == "__main__":
    print(render(), end="")
