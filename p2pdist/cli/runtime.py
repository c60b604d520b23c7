"""`p2pdist runtime`: point the container engines of this host at the peer's mirror."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.errors import ConfigError
from p2pdist.process.terminal import printable, printable_lines

if TYPE_CHECKING:
    from p2pdist.engines.install import Outcome
    from p2pdist.engines.options import Options
    from p2pdist.engines.record import Record, Records
    from p2pdist.engines.targets import Engine

ENGINES = ("docker", "containerd", "podman", "crio")


def _common(command: Any) -> Any:
    for option in (
        click.option("--engine", type=click.Choice(ENGINES), required=True, help="Which engine."),
        click.option("--dry-run", is_flag=True, help="Show what would change; change nothing."),
        click.option(
            "--root",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("/"),
            help="Work on the files below this directory, as for an image that is being built.",
        ),
        click.option(
            "--state-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where the originals are kept; /var/lib/p2pdist/runtime below --root.",
        ),
        click.option(
            "--docker-config",
            type=click.Path(dir_okay=False, path_type=Path),
            help="daemon.json, where dockerd was given another one.",
        ),
        click.option(
            "--docker-pidfile",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Pid file of dockerd, where it was given another one.",
        ),
        click.option(
            "--leave-others",
            is_flag=True,
            help="Leave an engine as it is that was set up on the host itself, for a pod that has "
            "the files of its node below --root.",
        ),
    ):
        command = option(command)
    return command


def _lost_mirror(command: Any) -> Any:
    return click.option(
        "--mirror",
        default="http://127.0.0.1:5300",
        show_default=True,
        help="docker: the peer to look for, where the state directory was cleared.",
    )(command)


@click.group()
def runtime() -> None:
    """Point container engines at the peer of this host, and take that back.

    Images keep their names. Nothing is restarted: Docker and CRI-O are told to reload, containerd
    and Podman read their files at every pull.

    \b
    Examples:
      p2pdist runtime install --engine docker --dry-run     see the change first
      p2pdist runtime install --engine containerd
      p2pdist runtime install --engine podman --registry docker.io --registry ghcr.io
      p2pdist runtime install --engine containerd --early-starts
      p2pdist runtime uninstall --engine docker             every byte as it was before
    """


@runtime.command()
@_common
@click.option("--mirror", default="http://127.0.0.1:5300", show_default=True, help="The peer.")
@click.option(
    "--registry",
    "registries",
    multiple=True,
    default=("docker.io",),
    show_default=True,
    help="podman, crio: a registry to pull through the peer; give it as often as needed.",
)
@click.option(
    "--tags-from-origin",
    is_flag=True,
    help="containerd: ask the registry itself what a tag stands for, the peer for the rest.",
)
@click.option(
    "--early-starts/--no-early-starts",
    default=None,
    help="Containers start before their layers are here, by `p2pdist snapshotter` of this host; "
    "containerd, docker and crio have to be restarted once, by you. Neither: as it was.",
)
@click.option(
    "--snapshotter-socket",
    default="/run/p2pdist/snapshotter.sock",
    show_default=True,
    help="With --early-starts: its setting snapshotter.socket.",
)
@click.option(
    "--snapshotter-dir",
    default="/var/lib/p2pdist/snapshotter",
    show_default=True,
    help="With --early-starts: `snapshotter` below its host.state_dir.",
)
def install(engine: str, mirror: str, registries: tuple[str, ...], **common: Any) -> None:
    """Make an engine pull through the peer. Doing it twice changes nothing more.

    Refuses, with the reason, where a setting that is there would break pulls beside ours.
    """
    from p2pdist.engines.install import install as carry_out
    from p2pdist.engines.options import EarlyStarts, Options, check_options

    early = EarlyStarts(common["snapshotter_socket"], common["snapshotter_dir"])
    with _no_setting():
        options = check_options(
            Options(
                mirror,
                registries,
                common["tags_from_origin"],
                common["root"],
                early if common["early_starts"] else None,
            )
        )
        if _left_to_others(engine, options, common):
            return
        outcome = carry_out(
            _engine(engine, common),
            options,
            _state_dir(common),
            dry_run=common["dry_run"],
            keep_early=common["early_starts"] is None,
        )
    _show(outcome, options, dry_run=common["dry_run"])


@runtime.command()
@_common
@_lost_mirror
@click.option("--force", is_flag=True, help="containerd: also where early starts are in use.")
def uninstall(engine: str, mirror: str, force: bool, **common: Any) -> None:
    """Take our setting out again: files get the bytes that they had before.

    A file that was edited since keeps the edits and loses only our part. So does every file where
    the state directory was cleared. Where containerd has containers or images by early starts, it
    is refused: without the snapshotter it could not remove them.
    """
    from p2pdist.engines.install import uninstall as carry_out
    from p2pdist.engines.options import Options, check_options

    with _no_setting():
        options = check_options(Options(mirror, root=common["root"]))
        if _left_to_others(engine, options, common):
            return
        outcome = carry_out(
            _engine(engine, common),
            options,
            _state_dir(common),
            dry_run=common["dry_run"],
            force=force,
        )
    _show(outcome, options, dry_run=common["dry_run"])


@runtime.command()
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("/"))
@click.option("--state-dir", type=click.Path(file_okay=False, path_type=Path))
@_lost_mirror
def status(mirror: str, **common: Any) -> None:
    """Show which engines pull through the peer, and whether their files were edited since."""
    from p2pdist.engines.options import Options, check_options
    from p2pdist.engines.record import records_at

    with _no_setting():
        options = check_options(Options(mirror, root=common["root"]))
    kept_here = records_at(_state_dir(common), options.tree)
    for name in ENGINES:
        with _no_setting():
            known = kept_here.load(name)
            lines = (
                _recorded(known, options) if known is not None else _shown(name, options, kept_here)
            )
        for line in lines or ["not installed"]:
            click.echo(printable(f"{name}: {line}"))


def _left_to_others(engine: str, options: Options, common: dict[str, Any]) -> bool:
    """Say so if the engine is none of ours, and is to be left then."""
    from p2pdist.engines.install import set_up_by_others

    if not common["leave_others"]:
        return False
    reason = set_up_by_others(_engine(engine, common), options, _state_dir(common))
    if reason is not None:
        click.echo(printable(f"left as it is: {reason}"))
    return reason is not None


def _recorded(known: Record, options: Options) -> list[str]:
    from p2pdist.engines.record import sha256

    lines = []
    for file in known.files:
        now = options.tree.read(Path(file.path))
        same = now is not None and sha256(now) == file.written_sha256
        state = "as installed" if same else "edited since" if now is not None else "gone"
        lines.append(f"{known.mirror} in {file.path} ({state})")
    if known.early is not None:
        lines.append(f"early starts by {known.early.socket}")
    return lines


def _shown(name: str, options: Options, kept_here: Records) -> list[str]:
    """What an engine's files show by themselves, where the record is lost."""
    from p2pdist.engines.install import marked_targets
    from p2pdist.engines.toml_blocks import marked

    places = {"docker_config": None, "docker_pidfile": None}
    try:
        found = marked_targets(_engine(name, places), options, kept_here)
    except ConfigError as error:
        return [str(error)]
    return [
        f"{'early starts' if marked(now) else 'a mirror'} in {target.path} (without a record)"
        for target, now in found
    ]


@contextmanager
def _no_setting() -> Iterator[None]:
    """What is wrong here is in files of the host: no setting of ours says where it comes from."""
    try:
        yield
    except ConfigError as error:
        raise CommandError(str(error), Exit.USAGE, error.hint) from None


def _engine(name: str, common: dict[str, Any]) -> Engine:
    from p2pdist.engines.containerd import Containerd
    from p2pdist.engines.containers_image import Crio, Podman
    from p2pdist.engines.docker import Docker

    engines: dict[str, Engine] = {
        "docker": Docker(common["docker_config"], common["docker_pidfile"]),
        "containerd": Containerd(),
        "podman": Podman(),
        "crio": Crio(),
    }
    return engines[name]


def _state_dir(common: dict[str, Any]) -> Path:
    from p2pdist.engines.record import default_dir

    given: Path | None = common["state_dir"]
    root: Path = common["root"]
    return given or default_dir(root)


def _show(outcome: Outcome, options: Options, *, dry_run: bool) -> None:
    for change in outcome.changes:
        if dry_run:
            click.echo(printable_lines(change.diff()), nl=False)
        else:
            verb = "removed" if change.after is None else "wrote"
            click.echo(printable(f"{verb} {change.path}"))
    for message in outcome.messages:
        if message:
            click.echo(printable_lines(message), err=dry_run)
