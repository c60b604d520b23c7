"""`p2pdist version`."""

from __future__ import annotations

import json
import platform

import click

from p2pdist import __version__


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def version(output: str) -> None:
    """Print the version of p2pdist and of what it runs on."""
    facts = {"version": __version__, "python": platform.python_version()}
    if output == "json":
        click.echo(json.dumps({"schema_version": 1, **facts}))
    else:
        click.echo(f"p2pdist {facts['version']} (Python {facts['python']})")
