"""How a pull shows itself: bars on a terminal, plain lines elsewhere, or JSON events."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from p2pdist.cli.amounts import size_text
from p2pdist.cli.pulling.client import Progress
from p2pdist.model.ids import Digest
from p2pdist.oci.manifest import Descriptor
from p2pdist.process.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

# A build log neither fills up nor looks dead.
LINE_EVERY_S: Final = 10.0


def progress_for(style: str, *, quiet: bool) -> Progress:
    """`auto` is bars where stderr is a terminal and plain lines where it is not."""
    if quiet:
        return Silent()
    if style == "json":
        return JsonEvents()
    if style == "bar" or (style == "auto" and sys.stderr.isatty()):
        return Bars()
    return PlainLines()


def short(digest: Digest) -> str:
    return digest.partition(":")[2][:12]


class Silent:
    def started(self, image: str, blobs: list[Descriptor]) -> None: ...

    def advanced(self, digest: Digest, nbytes: int) -> None: ...

    def retried(self, digest: Digest, why: str) -> None: ...

    def finished(self, digest: Digest) -> None: ...

    def ended(self) -> None: ...


class PlainLines:
    """A line per change of state, and one every 10 s."""

    def __init__(self) -> None:
        self._total = self._got = 0
        self._sizes: dict[Digest, int] = {}
        self._said_s = time.monotonic()

    def started(self, image: str, blobs: list[Descriptor]) -> None:
        self._sizes = {blob.digest: blob.size for blob in blobs}
        self._total = sum(self._sizes.values())
        self._say(f"pulling {image}: {len(blobs)} blobs, {size_text(self._total)}")

    def advanced(self, digest: Digest, nbytes: int) -> None:
        self._got += nbytes
        if time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._say(f"{size_text(self._got)} of {size_text(self._total)}")

    def retried(self, digest: Digest, why: str) -> None:
        self._say(f"{short(digest)} interrupted, going on: {why}")

    def finished(self, digest: Digest) -> None:
        self._say(f"{short(digest)} done, {size_text(self._sizes[digest])}")

    def ended(self) -> None: ...

    def _say(self, text: str) -> None:
        self._said_s = time.monotonic()
        print(printable(text), file=sys.stderr, flush=True)


class JsonEvents:
    """One JSON object a line; the last `advanced` of a blob has all its bytes."""

    def __init__(self) -> None:
        self._got: dict[Digest, int] = {}

    def started(self, image: str, blobs: list[Descriptor]) -> None:
        listed = [{"digest": b.digest, "size_bytes": b.size} for b in blobs]
        self._emit(event="started", image=image, blobs=listed)

    def advanced(self, digest: Digest, nbytes: int) -> None:
        self._got[digest] = self._got.get(digest, 0) + nbytes
        self._emit(event="advanced", digest=digest, got_bytes=self._got[digest])

    def retried(self, digest: Digest, why: str) -> None:
        self._emit(event="retried", digest=digest, reason=why)

    def finished(self, digest: Digest) -> None:
        self._emit(event="finished", digest=digest)

    def ended(self) -> None: ...

    @staticmethod
    def _emit(**fields: Any) -> None:
        print(json.dumps({"schema_version": 1, **fields}), file=sys.stderr, flush=True)


class Bars:
    """A row per blob with bar, bytes, rate and time left."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """On stderr, unless on another `console`."""
        from rich import progress
        from rich.console import Console

        self._display = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=console or Console(stderr=True),
            get_time=clock,
        )
        self._rows: dict[Digest, Any] = {}

    def started(self, image: str, blobs: list[Descriptor]) -> None:
        self._display.console.print(printable(image), markup=False, highlight=False)
        self._display.start()
        for blob in blobs:
            self._rows[blob.digest] = self._display.add_task(short(blob.digest), total=blob.size)

    def advanced(self, digest: Digest, nbytes: int) -> None:
        self._display.advance(self._rows[digest], nbytes)

    def retried(self, digest: Digest, why: str) -> None:
        text = f"{short(digest)} interrupted, going on: {printable(why)}"
        self._display.console.print(text, markup=False, highlight=False)

    def finished(self, digest: Digest) -> None:
        self._display.stop_task(self._rows[digest])

    def ended(self) -> None:
        self._display.stop()  # also where it failed: the cursor comes back
