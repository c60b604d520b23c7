"""`p2pdist config`: show, check or start a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from p2pdist.cli.options import config_option, load_from_flags, setting_flags
from p2pdist.process.terminal import printable
from p2pdist.settings import SECTIONS, TABLES, leaves_of, show
from p2pdist.settings_json import as_json

ALL = tuple(SECTIONS)


@click.group()
def config() -> None:
    """Show, check or start a configuration.

    Values come from the file, then P2PDIST_SECTION__KEY variables, then flags; the later wins.
    """


@config.command("show")
@config_option
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("-o", "--output", type=click.Choice(["toml", "json"]), default="toml")
@setting_flags(*ALL)
def show_command(config: Path | None, origin: bool, output: str, **flags: Any) -> None:
    """Print the settings in force. Secrets are never shown: settings name their files."""
    loaded = load_from_flags(config, flags)
    if output == "json":
        click.echo(json.dumps(as_json(loaded.settings, loaded.origins if origin else None)))
        return
    for section in SECTIONS:
        click.echo(f"[{section}]")
        for leaf in leaves_of(section, SECTIONS[section]):
            value = getattr(getattr(loaded.settings, section), leaf.key)
            source = loaded.origins.get(leaf.name, "default")
            click.echo(
                f"{leaf.key} = {_toml(value)}" + (f"  # {printable(source)}" if origin else "")
            )
        click.echo("")
    for name, record in TABLES.items():
        for table in getattr(loaded.settings, name):
            click.echo(f"[[{name}]]")
            for leaf in leaves_of(name, record):
                click.echo(f"{leaf.key} = {_toml(getattr(table, leaf.key))}")
            click.echo("")


@config.command("verify")
@config_option
@setting_flags(*ALL)
def verify(config: Path | None, **flags: Any) -> None:
    """Check everything that can be checked without starting a daemon; name all faults at once."""
    from p2pdist.cli.verify import problems

    settings = load_from_flags(config, flags).settings
    errors, warnings = problems(settings)
    for text in warnings:
        click.echo(f"warning: {printable(text)}", err=True)
    if errors:
        from p2pdist.errors import ConfigError

        raise ConfigError("\n".join(errors))
    click.echo("ok")


@config.command("init")
def init() -> None:
    """Print a file with every setting at its default, commented out."""
    for section in SECTIONS:
        click.echo(f"[{section}]")
        for leaf in leaves_of(section, SECTIONS[section]):
            click.echo(f"# {leaf.help}\n#{leaf.key} = {_toml(leaf.default)}")
        click.echo("")
    click.echo("# One table for each registry; Docker Hub is there while none is given.")
    _commented_table("upstream")
    click.echo("\n# One table for each rule of a proxy that keeps images in step.")
    _commented_table("replicate")


def _commented_table(name: str) -> None:
    click.echo(f"#[[{name}]]")
    for leaf in leaves_of(name, TABLES[name]):
        click.echo(f"# {leaf.help}\n#{leaf.key} = {_toml(leaf.default)}")


def _toml(value: Any) -> str:
    import tomlkit

    text: str = tomlkit.item(show(value)).as_string()
    return text
