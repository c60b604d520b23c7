"""The `p2pdist` command: finds the verb, runs it, turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

import click

from p2pdist import __version__
from p2pdist.cli.exit_codes import Exit

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# verb -> module of `p2pdist.cli` that defines `command`; imported when asked for, because aiohttp
# alone takes 0.4 s and `--help` should not wait for it.
VERBS: Final = {
    "proxy": ("daemons", "run the registry proxy of a datacenter"),
    "tracker": ("daemons", "run the tracker of a datacenter"),
    "peer": ("daemons", "run the peer of a host: the mirror that its runtime pulls from"),
    "snapshotter": ("daemons", "start containers of containerd before their layers are here"),
    "all-in-one": ("all_in_one", "run all three on one host, with embedded defaults"),
    "runtime": ("runtime", "point Docker, containerd, Podman or CRI-O at the peer, and undo it"),
    "pull": ("pull", "pull an image through the local mirror"),
    "cp": ("cp", "copy files out of an image, fetching only what they need"),
    "mount": ("mount", "show an image's files at a directory, without pulling it"),
    "unmount": ("mount", "take away what mount mounted"),
    "run": ("run", "run a container of an image that is not here, without an engine"),
    "prewarm": ("prewarm", "put images on hosts before a release; ls, show, cancel, retry, resume"),
    "replicas": ("replicas", "where an image lies, datacenter by datacenter, and who is behind"),
    "status": ("status", "show what the daemons of this host are doing"),
    "doctor": ("doctor", "check this host: keys, ports, clocks, disk, engines; each with the fix"),
    "debug": ("debug", "tell how a blob came to this host, and what took the time"),
    "config": ("config", "show, check or start a configuration"),
    "cluster": ("cluster", "make the files that the hosts of a datacenter start from"),
    "keys": ("keys", "make the cluster secret and the proxy's key"),
    "ca": ("ca", "make the CA of a cluster, and certificates for its hosts"),
    "join": ("join", "get the first certificate of this host, for a token"),
    "demo": ("demo", "two datacenters, six peers and a registry on this machine"),
    "completion": ("completion", "print what makes bash, zsh or fish complete this command line"),
    "man": ("man", "write the manual pages"),
    "version": ("version", "print the version"),
}
COMPLETE: Final = "_P2PDIST_COMPLETE"
"""The variable by which a shell asks for what completes a word."""


class Verbs(click.Group):
    """Loads a verb's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"p2pdist.cli.{VERBS[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Name the verbs without loading them: each press of the key runs this."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(verb, help=text)
            for verb, (_, text) in VERBS.items()
            if verb.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="p2pdist %(version)s")
@click.option("--debug", is_flag=True, help="Print a traceback when a command fails.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Container images from peer to peer, in front of any registry.

    \b
    Start here:
      p2pdist demo                        see it work on this machine
      p2pdist all-in-one                  one host, Docker Hub, embedded defaults
      p2pdist COMMAND --help              what a command does, with examples
    """
    ctx.obj = debug


def main() -> None:
    """Run the command line and exit with a documented code."""
    debug = "--debug" in sys.argv
    if COMPLETE in os.environ:
        from p2pdist.cli.completing import register

        register()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  # the last place that can say what it means
        sys.exit(_fail(error, debug=debug))
    sys.exit(code if isinstance(code, int) else Exit.DONE)


def _fail(error: Exception, *, debug: bool) -> int:
    from p2pdist.cli.failures import cause_of, explain, is_bug
    from p2pdist.process.terminal import printable_lines

    cause = cause_of(error)
    code, message, hint = explain(cause)
    if debug or is_bug(cause):
        click.echo(printable_lines("".join(traceback.format_exception(cause))), err=True)
    click.echo(f"p2pdist: {printable_lines(message)}", err=True)
    if hint:
        click.echo(f"hint: {printable_lines(hint)}", err=True)
    return code


if __name__ == "__main__":
    main()
