"""A host below a directory: what install and uninstall are tried on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pdist.engines.install import Outcome, install, uninstall
from p2pdist.engines.options import Options, check_options
from p2pdist.engines.targets import Engine

MIRROR = "http://127.0.0.1:5300"


@dataclass
class EngineHost:
    root: Path
    engine: Engine

    def put(self, path: str, content: bytes, mode: int = 0o644) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
        return file

    def read(self, path: str) -> bytes | None:
        file = self.root / path.lstrip("/")
        return file.read_bytes() if file.exists() else None

    def install(
        self, *, dry_run: bool = False, keep_early: bool = False, **options: object
    ) -> Outcome:
        given = check_options(Options(root=self.root, **options))  # type: ignore[arg-type]  # fields of Options
        return install(self.engine, given, self.state, dry_run=dry_run, keep_early=keep_early)

    def uninstall(self, *, dry_run: bool = False, force: bool = False) -> Outcome:
        options = Options(root=self.root)
        return uninstall(self.engine, options, self.state, dry_run=dry_run, force=force)

    @property
    def state(self) -> Path:
        return self.root / "state"

    def everything(self) -> dict[str, tuple[bytes, int] | None]:
        """Content and mode of every file, and every directory, but our own state."""
        found: dict[str, tuple[bytes, int] | None] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name.split("/")[0] == "state":
                continue
            is_file = path.is_file()
            found[name] = (path.read_bytes(), path.stat().st_mode) if is_file else None
        return found
