"""`p2pdist prewarm`: images onto hosts before a release, and the truth about who is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.prewarming.options import (
    Desk,
    endpoint_option,
    open_resolver,
    open_trackers,
    output_option,
    tracker_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from p2pdist.cli.prewarming.ask import Wish
    from p2pdist.cli.prewarming.picture import Picture
    from p2pdist.cli.prewarming.trackers import Filed, Found, Planned, Trackers
    from p2pdist.model.jobs import JobSpec, JobStatus

_ABOUT: Final = {
    "ls": "list the jobs of all trackers",
    "show": "show how a job stands; --wait follows it to its end",
    "cancel": "stop a job; hosts keep what they have",
    "retry": "try its failed hosts again",
    "resume": "open the next wave of a job that is held",
}


class ShortForm(click.Command):
    """`prewarm ls` is a verb of its own; anything else that follows `prewarm` names images."""

    verbs: Final[dict[str, click.Command]] = {}

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args and args[0] in self.verbs:
            verb, *rest = args
            return self.verbs[verb].make_context(f"{info_name} {verb}", rest, parent, **extra)
        meant = "--" in args  # click takes words off the list
        context = super().make_context(info_name, args, parent, **extra)
        images = context.params.get("images", ())
        if images and images[0] in self.verbs and not meant:
            raise CommandError(
                f"options follow the verb: p2pdist prewarm {images[0]} …",
                Exit.USAGE,
                f"for an image of that name: p2pdist prewarm -- {images[0]}",
            )
        return context

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl(list(_ABOUT.items()))


@click.command(cls=ShortForm)
@click.argument("images", nargs=-1, metavar="IMAGE…")
@click.option(
    "--file",
    "list_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="LIST",
    help="One image a line, # starts a comment; - reads stdin.",
)
@click.option(
    "--hosts",
    default="*",
    show_default=True,
    metavar="SELECTOR",
    help="Which hosts: names (web-*), labels (role=web,zone!=b), a share (10%), a count (25); "
    "commas mean all of it at once, semicolons either.",
)
@click.option("--dc", "dcs", multiple=True, metavar="NAME", help="Only there; else everywhere.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Else each host gets its own.")
@click.option("--at", default="", metavar="TIME", help="Start then: +30m or 2026-11-24T22:00.")
@click.option(
    "--deadline",
    default="",
    metavar="TIME",
    help="Ready by then; a duration counts from the start. The wait ends there with code 8.",
)
@click.option("--strict-deadline", is_flag=True, help="File nothing if it cannot hold.")
@click.option("--rate", default="", metavar="RATE", help="For each host, such as 50MB/s.")
@click.option(
    "--dc-rate", default="", metavar="RATE", help="Into each datacenter from outside, 200MB/s."
)
@click.option(
    "--waves",
    default="100%",
    show_default=True,
    metavar="SHARES",
    help="Growing shares of the hosts, one after the other: 1%,10%,100%.",
)
@click.option(
    "--wave-gate",
    default="99%",
    show_default=True,
    metavar="SHARE",
    help="How many of the waves so far must be ready before the next one; else the job is held.",
)
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    show_default=True,
    help="Among jobs; what a runtime pulls goes first in any case.",
)
@click.option(
    "--pin",
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="No cache cleaning touches it for so long.",
)
@click.option("--into-runtime", is_flag=True, help="Into Docker or containerd, too.")
@click.option("--dry-run", is_flag=True, help="Only say what it would move, per datacenter.")
@click.option(
    "--wait/--detach",
    "wait",
    default=True,
    show_default=True,
    help="Wait for the end, or print the run's name and leave.",
)
@click.option("-q", "--quiet", is_flag=True, help="No plan, no progress, no summary.")
@output_option
@tracker_options
@endpoint_option
def prewarm(
    images: tuple[str, ...],
    list_file: Path | None,
    desk: Desk,
    endpoint: str,
    output: str,
    dry_run: bool,
    wait: bool,
    quiet: bool,
    strict_deadline: bool,
    **typed: Any,
) -> None:
    """Put images on hosts before a release, and say truthfully who is ready.

    Ready means: every byte lies on the host, verified, and the host proved it. Hosts fetch from
    each other, each datacenter's border is crossed once, and what a runtime pulls goes first.

    \b
    Examples:
      p2pdist prewarm registry.corp/shop/api:2.4
      p2pdist prewarm api:2.4 web:2.4 --hosts 'role=web' --waves 1%,10%,100%
      p2pdist prewarm api:2.4 --dc dc2 --dc-rate 200MB/s --deadline 30m --dry-run
      p2pdist prewarm --file release.txt --at 2026-11-24T22:00 --detach
      p2pdist prewarm ls
      p2pdist prewarm show --wait run-4f2a9c1b

    An image that is called like a command: `p2pdist prewarm -- ls`.

    \b
    Exit codes:
      0 ready everywhere      4 not authorised
      2 wrong usage           5 tracker or registry out of reach
      3 unknown image,        7 not everywhere: failed or held
        no such host          8 deadline missed, or cannot hold
    """
    from p2pdist.cli.prewarming.ask import image_list, read_wish
    from p2pdist.process.clock import unix_s

    try:
        named = [*images, *(image_list(list_file) if list_file else ())]
        wish = read_wish(named, now_unix_s=unix_s(), **typed)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist prewarm --help`") from None
    except OSError as error:
        raise CommandError(f"--file: {error}", Exit.USAGE) from None
    errand = _Errand(output == "json", quiet=quiet, dry_run=dry_run, wait=wait)
    errand.strict_deadline = strict_deadline

    async def run() -> Exit:
        async with open_trackers(desk) as opened:
            async with open_resolver(endpoint) as resolver:
                found = await resolver.images(wish.references, wish.spec.platform)
            return await errand.run(opened, wish, found)

    _finish(errand, run())


class _Errand:
    """One command on its way; knows what an interrupt must say."""

    def __init__(
        self, as_json: bool, *, quiet: bool = False, dry_run: bool = False, wait: bool = True
    ) -> None:
        self.run_name = ""
        """Set as soon as a job may have been filed."""
        self.strict_deadline = False
        self._json, self._quiet = as_json, quiet
        self._dry_run, self._wait = dry_run, wait

    async def run(self, trackers: Trackers, wish: Wish, images: list[Any]) -> Exit:
        from p2pdist.cli.prewarming.plan import deadline_fails, plan_json
        from p2pdist.cli.prewarming.trackers import new_run

        run = new_run()
        spec = wish.filled(images, run)
        planned = await trackers.plan(spec)
        late = deadline_fails(planned)
        refused = late and self.strict_deadline and not self._dry_run
        self._show_plan(spec, planned, late=late)
        if self._dry_run and self._json:
            click.echo(json.dumps(plan_json(spec, planned), indent=2))
        if self._dry_run or refused:
            if refused:
                click.echo("p2pdist: nothing was filed (--strict-deadline)", err=True)
            return Exit.TIMEOUT if late else Exit.DONE
        self.run_name = run
        filed = await trackers.submit(spec, planned)
        if not self._wait:
            return self._detached(run, filed)
        return await self.follow(trackers, run, filed)

    async def follow(self, trackers: Trackers, run: str, filed: Sequence[Filed]) -> Exit:
        """Wait for the end and tell it."""
        from p2pdist.cli.prewarming.picture import Picture
        from p2pdist.cli.prewarming.progress import display_for
        from p2pdist.cli.prewarming.watch import Watch

        self.run_name = run
        picture = await Watch(filed, display_for(run, quiet=self._quiet)).wait()
        code = picture.exit_code if picture.settled else Exit.TIMEOUT
        # Of failed hosts only some are in what was polled; what comes now is for the record, and a
        # tracker that goes away just here takes nothing from what is known.
        with contextlib.suppress(CommandError):
            picture = Picture(await trackers.show(filed, hosts="all"))
        self._tell(picture, filed, run, code)
        return code

    def interrupted(self) -> None:
        if self.run_name:
            click.echo(
                f"\ninterrupted; the job goes on. Follow it: p2pdist prewarm show --wait "
                f"{self.run_name}\n             or stop it: p2pdist prewarm cancel {self.run_name}",
                err=True,
            )
        else:
            click.echo("\ninterrupted; nothing was filed", err=True)

    def _show_plan(self, spec: JobSpec, planned: Sequence[Planned], *, late: bool) -> None:
        from p2pdist.cli.prewarming.plan import plan_lines
        from p2pdist.cli.prewarming.progress import echo
        from p2pdist.process.clock import unix_s

        lines = plan_lines(spec, planned, unix_s())
        if not self._quiet:
            echo(lines, err=self._json or not self._dry_run)
        elif late:
            echo(lines[-1:], err=True)

    def _detached(self, run: str, filed: Sequence[Filed]) -> Exit:
        if self._json:
            jobs = [{"id": one.job, "tracker": one.tracker.base_url} for one in filed]
            answer = {"schema_version": 1, "run": run, "jobs": jobs, "exit_code": int(Exit.DONE)}
            click.echo(json.dumps(answer, indent=2))
            return Exit.DONE
        click.echo(run)
        if not self._quiet:
            click.echo(f"filed; follow it: p2pdist prewarm show --wait {run}", err=True)
        return Exit.DONE

    def _tell(self, picture: Picture, filed: Sequence[Filed], run: str, code: Exit) -> None:
        from p2pdist.cli.prewarming.outcome import (
            complaint_lines,
            outcome_lines,
            run_json,
        )
        from p2pdist.cli.prewarming.progress import echo, screen_of
        from p2pdist.process.clock import unix_s

        if self._json:
            click.echo(json.dumps(run_json(picture, filed, run, code), indent=2))
        elif not self._quiet:
            echo(outcome_lines(picture, run, code, screen_of(sys.stdout)))
        if code is not Exit.DONE:
            echo(complaint_lines(picture, run, code, unix_s()), err=True)


# --- verbs ----------------------------------------------------------------------------------------


@click.command()
@output_option
@tracker_options
def ls(desk: Desk, output: str) -> None:
    """List the jobs of all trackers, the newest first; what one command filed is one line.

    \b
    Examples:
      p2pdist prewarm ls
      p2pdist prewarm ls -o json --tracker http://10.1.0.2:5209 --tracker http://10.2.0.2:5209
    """
    from p2pdist.cli.prewarming.outcome import listing, run_json
    from p2pdist.cli.prewarming.picture import Picture
    from p2pdist.cli.prewarming.progress import echo, screen_of
    from p2pdist.cli.prewarming.trackers import Filed, run_of
    from p2pdist.process.clock import unix_s

    async def run() -> Exit:
        async with open_trackers(desk) as opened:
            listed = await opened.jobs()
        runs: dict[str, list[tuple[Filed, Any]]] = {}
        for tracker, status in sorted(listed.jobs, key=lambda row: -row[1].created_unix_s):
            runs.setdefault(run_of(status), []).append((Filed(tracker, status.id), status))
        pictures = {run: Picture([status for _, status in jobs]) for run, jobs in runs.items()}
        if output == "json":
            objects = [
                run_json(picture, [filed for filed, _ in runs[run]], run, picture.exit_code)
                for run, picture in pictures.items()
            ]
            answer = {"schema_version": 1, "runs": objects, "trackers_away": list(listed.away)}
            click.echo(json.dumps(answer, indent=2))
        elif not runs:
            click.echo("no jobs")
        else:
            echo(listing(pictures, unix_s(), screen_of(sys.stdout)))
        return _said_away(listed.away, "its jobs are not shown")

    _finish(None, run())


@click.command()
@click.argument("job")
@click.option("--wait", is_flag=True, help="Follow it to its end; exit codes as of `prewarm`.")
@click.option(
    "--hosts",
    type=click.Choice(["problems", "all"]),
    default="problems",
    show_default=True,
    help="Failed, lost and slow ones, or every host.",
)
@output_option
@tracker_options
def show(
    job: str,
    wait: bool,
    hosts: str,
    desk: Desk,
    output: str,
) -> None:
    """Show how JOB stands: a run or a tracker's job, by its name or the beginning of it.

    \b
    Examples:
      p2pdist prewarm show run-4f2a9c1b
      p2pdist prewarm show 4f2a --wait
      p2pdist prewarm show 4f2a -o json | jq '.failed[] | .name + " " + .reason'
    """
    errand = _Errand(output == "json")

    async def run() -> Exit:
        async with open_trackers(desk) as opened:
            found = await opened.find(job)
            if wait and found.away:
                # What it has for this run is not known: no end that is seen is the end.
                raise CommandError("; ".join(found.away.values()), Exit.UPSTREAM)
            if wait:
                return await errand.follow(opened, found.name, found.filed)
            await _show(opened, found, output, hosts)
        return _said_away(found.away, "its part is not shown")

    _finish(errand, run())


def _verb(name: str, text: str, effect: Callable[[JobStatus, JobStatus], bool]) -> click.Command:
    """Make the command of one wish at a job that is there. `effect` says, by how it stood before
    and after, whether there was anything to do."""

    def command(
        job: str,
        desk: Desk,
        output: str,
    ) -> None:
        async def run() -> Exit:
            async with open_trackers(desk) as opened:
                found = await opened.find(job)
                after = await opened.act(found.filed, name)
                await _show(opened, found, output, "problems")
            if not any(map(effect, found.states, after)):
                states = ", ".join(dict.fromkeys(status.state for status in after))
                click.echo(f"p2pdist: nothing to {name}: {found.name} is {states}", err=True)
            return _said_away(found.away, f"it was not told to {name}: repeat this once it is back")

        _finish(None, run())

    command.__doc__ = text
    decorated = click.argument("job")(output_option(tracker_options(command)))
    return click.command(name)(decorated)


cancel = _verb(
    "cancel",
    "Stop JOB everywhere. Hosts keep what they have; it is pinned no longer.",
    lambda before, _: before.state not in ("done", "partly", "cancelled"),
)
retry = _verb(
    "retry",
    "Try the failed hosts of JOB again, those that gave up as well.",
    # One whose hosts the tracker has forgotten stays `partly`.
    lambda before, after: (
        any(row.failed for row in before.dcs)
        and after.state not in ("partly", "cancelled", "scheduled")
    ),
)
resume = _verb(
    "resume",
    "Open the next wave of JOB, though too few hosts of the waves so far are ready.",
    lambda before, _: before.state == "held",
)
ShortForm.verbs.update(ls=ls, show=show, cancel=cancel, retry=retry, resume=resume)


def _said_away(away: Mapping[str, str], consequence: str) -> Exit:
    """Say on stderr which trackers do not answer; return the code that goes with it."""
    from p2pdist.process.terminal import printable

    for why in away.values():
        click.echo(f"p2pdist: {printable(why)}; {consequence}", err=True)
    return Exit.UPSTREAM if away else Exit.DONE


async def _show(trackers: Trackers, found: Found, output: str, hosts: str) -> None:
    from p2pdist.cli.prewarming.frame import frame, host_lines
    from p2pdist.cli.prewarming.outcome import run_json
    from p2pdist.cli.prewarming.picture import Picture
    from p2pdist.cli.prewarming.progress import echo, screen_of
    from p2pdist.process.clock import unix_s

    wanted = "all" if output == "json" else hosts
    picture = Picture(await trackers.show(found.filed, hosts=wanted))
    if output == "json":
        answer = run_json(picture, found.filed, found.name, picture.exit_code)
        answer["trackers_away"] = list(found.away)
        click.echo(json.dumps(answer, indent=2))
        return
    screen = screen_of(sys.stdout)
    lines = frame(picture, found.name, screen, unix_s())
    if hosts == "all":
        lines += ["", *host_lines(picture.hosts, len(picture.hosts), screen)]
    echo(lines)


def _finish(errand: _Errand | None, running: Coroutine[Any, Any, Exit]) -> NoReturn:
    """Run to the end and leave with its code; an interrupt says what goes on without us."""
    from p2pdist.cli.terminating import terminable

    try:
        code = asyncio.run(terminable(running))
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    if errand is not None and code in (Exit.INTERRUPTED, Exit.TERMINATED):
        errand.interrupted()
    click.get_current_context().exit(int(code))
