"""`p2pdist man`: the manual pages."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--output",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/usr/local/share/man"),
    show_default=True,
    help="Where to put man1 and man5; made where they are not there.",
)
def man(directory: Path) -> None:
    """Write a manual page for each command, and one for the settings.

    \b
    Examples:
      p2pdist man                        for all users, as root
      p2pdist man --output ~/.local/share/man
    """
    from p2pdist.cli.main import cli
    from p2pdist.cli.man_pages import pages

    texts = pages(cli)
    for name, text in texts.items():
        path = directory / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    click.echo(f"{len(texts)} pages in {directory}")
