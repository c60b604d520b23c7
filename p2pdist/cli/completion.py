"""`p2pdist completion`: what makes a shell complete the command line."""

from __future__ import annotations

import click

PROGRAM = "p2pdist"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a SHELL.

    \b
    For all users, as root:
      p2pdist completion bash > /etc/bash_completion.d/p2pdist
      p2pdist completion zsh > /usr/local/share/zsh/site-functions/_p2pdist
      p2pdist completion fish > /etc/fish/completions/p2pdist.fish
    For this shell only:
      source <(p2pdist completion bash)
    """
    from p2pdist.cli.completing import SHELLS
    from p2pdist.cli.main import COMPLETE, cli

    click.echo(SHELLS[shell](cli, {}, PROGRAM, COMPLETE).source())
