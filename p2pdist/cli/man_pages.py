"""The manual pages, made from the tree of commands and the table of settings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import click

from p2pdist import __version__
from p2pdist.cli.exit_codes import MEANINGS
from p2pdist.settings import SECTIONS, TABLES, Leaf, leaves_of, show

FILES = (
    ("/etc/p2pdist/config.toml", "the settings of this host: p2pdist-config(5)"),
    ("/etc/p2pdist/conf.d/*.toml", "further settings, read after it"),
    ("/etc/p2pdist/cluster.secret", "the secret that the hosts of a cluster share"),
    (
        "/var/lib/p2pdist-peer",
        "what a peer keeps, under systemd; proxy and tracker likewise",
    ),
    ("/var/lib/p2pdist", "the same without systemd (host.state_dir)"),
)


def pages(root: click.Command) -> dict[str, str]:
    """Return the text of each page, by its file's name."""
    texts = {
        f"{'-'.join(path)}.1": _command_page(path, context)
        for path, context in _walk(root, ("p2pdist",), None)
    }
    return {**texts, "p2pdist-config.5": _settings_page()}


def _walk(
    command: click.Command, path: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Context]]:
    context = click.Context(command, info_name=path[-1], parent=parent)
    yield path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _walk(child, (*path, name), context)


def _command_page(path: tuple[str, ...], context: click.Context) -> str:
    command = context.command
    paragraphs = _paragraphs(command.help or "")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        *_heading("-".join(path), 1, _first_sentence(paragraphs)),
        ".SH SYNOPSIS",
        f".B {_text(' '.join(path))}",
        _text(usage),
        ".SH DESCRIPTION",
        *_description(paragraphs),
    ]
    records = [r for p in command.get_params(context) if (r := p.get_help_record(context))]
    if records:
        lines += [".SH OPTIONS", *_items(records)]
    children = _children(context)
    if children:
        named = [(f"{'-'.join((*path, name))}(1)", text) for name, text in children]
        lines += [".SH COMMANDS", *_items(named)]
    codes = [(str(int(code)), text) for code, text in MEANINGS.items()]
    lines += [".SH EXIT STATUS", *_items(codes), ".SH FILES", *_items(FILES)]
    lines += [".SH SEE ALSO", _text(", ".join(_neighbours(path)))]
    return "\n".join(lines) + "\n"


def _settings_page() -> str:
    lines = [
        *_heading("p2pdist-config", 5, "the settings of p2pdist"),
        ".SH DESCRIPTION",
        *_description(_paragraphs(_SETTINGS_INTRO)),
    ]
    for section, record in SECTIONS.items():
        lines += [f".SH [{section.upper()}]"]
        lines += _items([(leaf.key, _meaning(leaf)) for leaf in leaves_of(section, record)])
    for name, record in TABLES.items():
        lines += [f".SH [[{name.upper()}]]", "One such table for each."]
        lines += _items([(leaf.key, _meaning(leaf)) for leaf in leaves_of(name, record)])
    lines += [".SH FILES", *_items(FILES), ".SH SEE ALSO", _text("p2pdist(1), p2pdist-config(1)")]
    return "\n".join(lines) + "\n"


_SETTINGS_INTRO = """
Values come from the defaults, then the file (--config, else P2PDIST_CONFIG, else
/etc/p2pdist/config.toml), then conf.d/*.toml beside a file that is called config.toml, then
variables (P2PDIST_SECTION__KEY), then flags (--section-key); the later wins. An unknown key is an
error that names the nearest one.

The file is TOML. A list is ["a", "b"] in the file and a,b in a variable or flag. Sizes are numbers
of bytes or texts such as 50GB and 20GiB; durations are seconds or texts such as 500ms, 30s and
24h. Secrets are read from files, which only their owner may read.
"""


def _meaning(leaf: Leaf) -> str:
    value = show(leaf.default)
    default = json.dumps(value, ensure_ascii=False) if value not in ("", []) else "none"
    return f"{leaf.help} Value: {leaf.kind.name}; default: {default}."


def _heading(name: str, section: int, summary: str) -> list[str]:
    title = f'.TH {_text(name.upper())} {section} "" "p2pdist {_text(__version__)}" "p2pdist"'
    # No hyphenation, left-aligned: names of flags and paths stay whole.
    return [title, ".nh", ".ad l", ".SH NAME", _text(f"{name} - {summary}")]


def _paragraphs(text: str) -> list[str]:
    return [p.strip("\n") for p in inspect.cleandoc(text).split("\n\n")]


def _first_sentence(paragraphs: list[str]) -> str:
    sentence = " ".join(paragraphs[0].split()).partition(". ")[0]
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _description(paragraphs: list[str]) -> list[str]:
    r"""What click marks with \b keeps its lines; all else is filled."""
    lines: list[str] = []
    for paragraph in paragraphs:
        if paragraph.startswith("\b"):
            body = paragraph.removeprefix("\b").strip("\n").splitlines()
            lines += [".PP", ".nf", *map(_text, body), ".fi"]
        else:
            lines += [".PP", _text(" ".join(paragraph.split()))]
    return lines


def _items(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> list[str]:
    lines = []
    for term, text in rows:
        lines += [".TP", f".B {_text(term)}", _text(text) if text else r"\&"]
    return lines


def _children(context: click.Context) -> list[tuple[str, str]]:
    group = context.command
    if not isinstance(group, click.Group):
        return []
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [(n, _first_sentence(_paragraphs(c.help or ""))) for n, c in found if c and not c.hidden]


def _neighbours(path: tuple[str, ...]) -> list[str]:
    above = ["-".join(path[:-1]) + "(1)"] if len(path) > 1 else []
    return [*above, "p2pdist-config(5)"]


def _text(text: str) -> str:
    """Return `text` as roff prints it as it stands: no request, no escape, no typographic minus."""
    escaped = text.replace("\\", r"\(rs").replace("-", r"\-").replace("^", r"\(ha")
    escaped = escaped.replace("~", r"\(ti").replace("`", r"\(ga").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith((".", " ")) else escaped
