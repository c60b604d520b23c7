"""Carries out an engine's plan, and takes it back."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.engines import record as records
from p2pdist.engines.early_starts import UNDONE
from p2pdist.engines.options import EarlyStarts, Options
from p2pdist.engines.record import FileRecord, Record, Records, records_at
from p2pdist.engines.targets import Engine, Plan, Target
from p2pdist.engines.toml_blocks import marked
from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree

LOST: Final = "{} had our mirror, and no record of what was there before: only our part goes"


@dataclass(frozen=True, slots=True)
class Change:
    """A file from what it holds to what it will hold; None: no file."""

    path: Path
    before: bytes | None
    after: bytes | None

    def diff(self) -> str:
        """A unified diff, as `--dry-run` shows it."""
        old = (self.before or b"").decode(errors="replace").splitlines(keepends=True)
        new = (self.after or b"").decode(errors="replace").splitlines(keepends=True)
        names = (str(self.path) if self.before is not None else "/dev/null",
                 str(self.path) if self.after is not None else "/dev/null")  # fmt: skip
        lines = difflib.unified_diff(old, new, *names)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Outcome:
    changes: Sequence[Change]
    messages: Sequence[str]


def install(
    engine: Engine, options: Options, state_dir: Path, *, dry_run: bool, keep_early: bool = False
) -> Outcome:
    """Point `engine` at the mirror. Raise ConfigError where that would break its pulls.

    `keep_early`: with early starts where the installation on record has them, whatever `options`
    say of them.
    """
    kept_here = records_at(state_dir, options.tree)
    known = _believed(kept_here, engine, options)
    if keep_early and known is not None:
        options = replace(options, early=known.early)
    if known is not None and known.early != options.early:
        _refuse_in_use(known, kept_here, options)
    others = kept_here.load_others(engine.name)
    plan = engine.plan(options)
    changes, files = [], []
    for target in plan.targets:
        change, kept, ours = _planned(target, known, others, engine, options)
        if ours:
            files.append(kept)
        if change.before != change.after:
            changes.append(change)
    notes = list(plan.notes)
    dropped: list[FileRecord] = []
    if known is not None:
        edits = _removers(engine, _options_of(known, options))
        dropped = _dropped(known, plan, edits)
        changes += _taken_back(dropped, edits, _used_by_others(known, kept_here), options, notes)
        # A registry's hosts.toml that is not there any more stays on record.
        settled = {kept.path for kept in [*files, *dropped]}
        files += [f for f in known.files if f.path not in settled]
    dirs = [*(known.created_dirs if known else []), *_missing_dirs(changes, options.tree)]
    paths = [target.path for target in plan.targets]
    dirs += [name for other in others for name in _above(paths, other.created_dirs)]
    fresh = Record(
        engine.name,
        options.mirror,
        list(options.registries),
        files,
        list(dict.fromkeys(dirs)),
        early=options.early,
    )
    ended = known is not None and known.early is not None and options.early is None
    notes += [UNDONE[engine.name]] if ended else _not_ours(fresh, engine, options, kept_here)
    if not changes and (fresh == known or not files):
        return Outcome([], ["already installed", *notes])
    if dry_run:
        return Outcome(changes, [plan.reload_text, *notes])
    before = known.early if known is not None else None
    unfinished = msgspec.structs.replace(
        fresh, files=[*files, *dropped], early=before or options.early
    )
    kept_here.save(unfinished)  # what is to end is on record until it is as it was
    _carry_out(changes, options.tree)
    if fresh != unfinished:
        kept_here.save(fresh)
    return Outcome(changes, [plan.reload(), *notes])


def uninstall(
    engine: Engine, options: Options, state_dir: Path, *, dry_run: bool, force: bool = False
) -> Outcome:
    """Take back what `install` did: byte for byte, or only our part where somebody edited since.

    `options` say what to look for where the record of it is lost. Raise ConfigError where early
    starts are in use, unless `force`.
    """
    kept_here = records_at(state_dir, options.tree)
    known = _believed(kept_here, engine, options)
    messages: list[str] = []
    if known is None:
        known = _record_of_what_shows(engine, options, kept_here)
        messages += [LOST.format(file.path) for file in known.files]
    if not known.files:
        return Outcome([], [f"not installed: nothing of {engine.name} points to {options.mirror}"])
    if not force:
        _refuse_in_use(known, kept_here, options)
    then = _options_of(known, options)
    edits = _removers(engine, then)
    shared = _used_by_others(known, kept_here)
    changes = _taken_back(known.files, edits, shared, options, messages)
    if known.early is not None:
        messages.append(UNDONE[engine.name])
    messages += _not_ours(known, engine, options, kept_here)
    if dry_run:
        return Outcome(changes, messages)
    for change in changes:
        if (target := edits.get(change.path)) is not None:
            _let_go(target, change, known, kept_here, engine, options)
    _carry_out(changes, options.tree)
    for name in _above([Path(kept.path) for kept in known.files], known.created_dirs):
        _remove_if_empty(Path(name), options.tree)
    kept_here.forget(engine.name)
    return Outcome(changes, [*messages, _reload_again(engine, options)])


def marked_targets(
    engine: Engine, options: Options, kept_here: Records
) -> list[tuple[Target, bytes]]:
    """The files that show by themselves that they point to the mirror, and what they hold; those
    that another engine has on record are its own."""
    others = kept_here.load_others(engine.name)
    found = []
    for target in engine.shown(options):
        now = options.tree.read(target.path)
        taken = any(other.file(target.path) is not None for other in others)
        if now is not None and not taken and target.marked(now):
            found.append((target, now))
    return found


def set_up_by_others(engine: Engine, options: Options, state_dir: Path) -> str | None:
    """Say by whom the engine was set up, where that was this command on the host itself and
    `options` have another root, as a pod sees a node; None: not so. Raise ConfigError."""
    kept_here = records_at(state_dir, options.tree)
    known = kept_here.load(engine.name)
    if known is None:
        places = _early_blocks(engine, options, kept_here)
        return f"early starts in {places[0]} were set up on this host itself" if places else None
    paths = [Path(kept.path) for kept in known.files]
    if any(engine.writes(path, options) for path in paths) or not all(
        ".." not in path.parts and engine.writes(options.path(str(path)), options) for path in paths
    ):
        return None
    early = "" if known.early is None else ", with early starts"
    other = "" if known.mirror == options.mirror else f" and not at {options.mirror}"
    return f"{engine.name} was set up on this host itself{early}, for {known.mirror}{other}"


def _not_ours(record: Record, engine: Engine, options: Options, kept_here: Records) -> list[str]:
    """What to say of early starts that the installation of `record` has nothing to do with."""
    if record.early is not None:
        return []
    places = _early_blocks(engine, options, kept_here)
    return [f"early starts in {place} stay: they are not of this installation" for place in places]


def _early_blocks(engine: Engine, options: Options, kept_here: Records) -> list[Path]:
    """Files with early starts that no other engine has on record."""
    others = kept_here.load_others(engine.name)
    return [
        target.path
        for target in engine.shown(options)
        if not any(other.file(target.path) is not None for other in others)
        and marked(options.tree.read(target.path))
    ]


def _record_of_what_shows(engine: Engine, options: Options, kept_here: Records) -> Record:
    """What an installation without a record can be taken back by: our part of each file."""
    found = marked_targets(engine, options, kept_here)
    files = [
        FileRecord(str(target.path), target.remove(now), records.sha256(now))
        for target, now in found
    ]
    early = EarlyStarts() if any(marked(now) for _, now in found) else None
    registries = list(options.registries)
    return Record(engine.name, options.mirror, registries, files, [], early=early)


def _let_go(
    target: Target,
    change: Change,
    known: Record,
    kept_here: Records,
    engine: Engine,
    options: Options,
) -> None:
    """Have the running engine forget the mirror, where taking the setting out is not enough."""
    assert change.before is not None
    meanwhile = target.let_go(change.before, change.after)
    kept = known.file(change.path)
    if meanwhile is None or kept is None:
        return
    kept.let_go_sha256 = records.sha256(meanwhile)
    kept_here.save(known)
    options.tree.write(change.path, meanwhile)
    _reload_again(engine, options)
    target.wait_let_go()


def _planned(
    target: Target, known: Record | None, others: Sequence[Record], engine: Engine, options: Options
) -> tuple[Change, FileRecord, bool]:
    """What to do to one file, what to keep of it, and whether it is ours to take back."""
    now = options.tree.read(target.path)
    kept = known.file(target.path) if known is not None else None
    shared = next((f for other in others if (f := other.file(target.path)) is not None), None)
    held = kept or shared
    original = now
    if held is not None and now is not None:
        if records.sha256(now) == held.written_sha256:
            original = held.original
        elif known is not None:  # edited since, or an installation that did not get this far
            then = _options_of(known, options)
            removers = {t.path: t for t in _targets_of(engine, then)}
            original = (removers.get(target.path) or target).remove(now)
    elif now is not None and target.marked(now):  # its record is lost
        original = target.remove(now)
    same = known is None or (known.mirror, known.early) == (options.mirror, options.early)
    base = now if same else original
    after = target.add(base)
    fresh = FileRecord(str(target.path), original, records.sha256(after))
    # What nobody of us changed is not ours to take back.
    return Change(target.path, now, after), fresh, now != after or held is not None


def _dropped(known: Record, plan: Plan, edits: Mapping[Path, Target]) -> list[FileRecord]:
    """The files of the installation on record that the next one has no part in, as storage.conf
    when early starts end."""
    taken = {target.path for target in plan.targets}
    return [kept for kept in known.files if Path(kept.path) in edits.keys() - taken]


def _taken_back(
    files: Sequence[FileRecord],
    edits: Mapping[Path, Target],
    shared: Mapping[str, str],
    options: Options,
    messages: list[str],
) -> list[Change]:
    """What to do to files that are to be ours no more; `messages` gets what is to be said."""
    changes = []
    for kept in files:
        path = Path(kept.path)
        if kept.path in shared:
            messages.append(f"{path} stays: {shared[kept.path]} uses it too")
            continue
        now = options.tree.read(path)
        after = _restored(kept, now, edits.get(path), messages)
        if after != now:
            changes.append(Change(path, now, after))
    return changes


def _restored(
    kept: FileRecord, now: bytes | None, target: Target | None, messages: list[str]
) -> bytes | None:
    if now is None:
        messages.append(f"{kept.path} is gone already")
        return None
    if records.sha256(now) in (kept.written_sha256, kept.let_go_sha256):
        return kept.original
    if now == kept.original or target is None:
        return now
    messages.append(f"{kept.path} was edited since: only our part was taken out")
    return target.remove(now)


def _options_of(known: Record, options: Options) -> Options:
    """What the installation on record was about."""
    return Options(known.mirror, tuple(known.registries), root=options.root, early=known.early)


def _refuse_in_use(known: Record, kept_here: Records, options: Options) -> None:
    """Raise ConfigError where containerd, or Docker above it, has need of the snapshotter: without
    it containerd can remove neither containers nor images that it made by it."""
    if known.engine != "containerd" or known.early is None:
        return
    others = kept_here.load_others(known.engine)
    if any(other.engine == "docker" and other.early is not None for other in others):
        raise ConfigError(
            "Docker keeps its images by the snapshotter that is in containerd's config.toml: run "
            "`p2pdist runtime uninstall --engine docker` first"
        )
    for name in ("layers", "snapshots"):
        directory = options.path(f"{known.early.directory}/{name}")
        if options.tree.listed(directory):
            raise ConfigError(
                f"containers or images need what is in {directory}, and containerd could remove "
                "none of them once it does not know the snapshotter any more: drain this host, "
                "remove them (`crictl rmp --all --force`, `crictl rmi --all`; `ctr` for those of "
                "other namespaces; Podman's where it uses the image store) and do it again, or run "
                "`p2pdist runtime uninstall --engine containerd --force`"
            )


def _targets_of(engine: Engine, options: Options) -> Sequence[Target]:
    return _plan_or_nothing(engine, options).targets


def _removers(engine: Engine, options: Options) -> dict[Path, Target]:
    return {target.path: target for target in _targets_of(engine, options)}


def _plan_or_nothing(engine: Engine, options: Options) -> Plan:
    """Taking out must work also where installing would be refused by now."""
    try:
        return engine.plan(options)
    except ConfigError:
        return Plan([], lambda: "", "")


def _reload_again(engine: Engine, options: Options) -> str:
    return _plan_or_nothing(engine, options).reload()


def _used_by_others(known: Record, kept_here: Records) -> dict[str, str]:
    """Files that another engine's installation wrote as well, by path: Podman's are CRI-O's."""
    others = kept_here.load_others(known.engine)
    return {file.path: other.engine for other in others for file in other.files}


def _believed(kept_here: Records, engine: Engine, options: Options) -> Record | None:
    """What is kept of `engine`; raise ConfigError where it names a file that is none of its own."""
    known = kept_here.load(engine.name)
    for kept in known.files if known is not None else ():
        path = Path(kept.path)
        if ".." in path.parts or not engine.writes(path, options):
            raise ConfigError(
                f"{kept_here.directory / engine.name}.json names {path}, which an installation of "
                f"{engine.name} does not write here; nothing was touched. Was another --root or "
                "configuration file given then? Else take the change back by hand and remove it"
            )
    return known


def _above(paths: Sequence[Path], directories: Sequence[str]) -> list[str]:
    """Those of `directories` that one of `paths` lies in."""
    parents = {str(parent) for path in paths for parent in path.parents}
    return [name for name in directories if name in parents]


def _missing_dirs(changes: Sequence[Change], tree: Tree) -> list[str]:
    """The directories that have to be made, deepest first."""
    missing = {
        str(parent)
        for change in changes
        for parent in change.path.parents
        if parent.is_relative_to(tree.top) and tree.status(parent) is None
    }
    return sorted(missing, key=lambda name: -len(Path(name).parts))


def _carry_out(changes: Sequence[Change], tree: Tree) -> None:
    for change in changes:
        if change.after is None:
            tree.unlink(change.path)
        else:
            tree.write(change.path, change.after)


def _remove_if_empty(directory: Path, tree: Tree) -> None:
    try:
        tree.rmdir(directory)
    except OSError:
        return  # somebody put something there, or took it away
