"""What the command line shows on a terminal of 80 columns, as text.

The screens of prewarm are in `prewarming/test_frame.py`, the demonstration's table in
`tests/demo/test_report.py`.
"""

from __future__ import annotations

import errno
import io
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError, explain_listening
from p2pdist.cli.main import _fail
from p2pdist.cli.pulling import progress
from p2pdist.cli.pulling.client import Progress, PulledImage
from p2pdist.cli.pulling.record import summary
from p2pdist.errors import CannotListen, ConfigError
from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_MANIFEST, Descriptor, ManifestInfo
from p2pdist.oci.reference import parse_reference

COLUMNS = 80
IMAGE = "registry.corp:5443/team/app:2026-11-29"
BLOBS = [
    Descriptor(digest_of(name), size, "application/octet-stream")
    for name, size in ((b"config", 6_412), (b"base", 148_300_000), (b"app", 2_750_000))
]


def pulls(shown: Progress, ticks: Callable[[float], None] = lambda s: None) -> None:
    """A pull that is cut once and goes on."""
    shown.started(IMAGE, BLOBS)
    for blob in BLOBS:
        shown.advanced(blob.digest, blob.size // 2)
        ticks(1.0)
        if blob is BLOBS[1]:
            shown.retried(blob.digest, "ended at 74150000 of 148300000 bytes")
        shown.advanced(blob.digest, blob.size - blob.size // 2)
        shown.finished(blob.digest)
        ticks(1.0)
    shown.ended()


def is_screen(text: str, expected: str) -> None:
    assert text == textwrap.dedent(expected).lstrip("\n")
    assert max(map(len, text.splitlines())) <= COLUMNS


def test_a_pull_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    pulls(progress.PlainLines())

    is_screen(
        capsys.readouterr().err,
        """
        pulling registry.corp:5443/team/app:2026-11-29: 3 blobs, 151.1 MB
        b79606fb3afe done, 6.4 kB
        cae662172fd4 interrupted, going on: ended at 74150000 of 148300000 bytes
        cae662172fd4 done, 148.3 MB
        a172cedcae47 done, 2.8 MB
        """,
    )


def test_a_pull_in_bars() -> None:
    now_s = 100.0

    def tick(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    screen = io.StringIO()
    console = Console(file=screen, width=COLUMNS, force_terminal=False, color_system=None)

    pulls(progress.Bars(console, clock=lambda: now_s), tick)

    is_screen(
        screen.getvalue(),
        """
        registry.corp:5443/team/app:2026-11-29
        cae662172fd4 interrupted, going on: ended at 74150000 of 148300000 bytes
        b79606fb3afe ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 6.4/6.4 kB     3.2 kB/s  0:00:00
        cae662172fd4 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 148.3/148.3 MB 74.2 MB/s 0:00:00
        a172cedcae47 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 2.8/2.8 MB     1.4 MB/s  0:00:00
        """,
    )


def test_the_last_line_of_a_pull(tmp_path: Path) -> None:
    config, *layers = BLOBS
    info = ManifestInfo("image", OCI_MANIFEST, config, tuple(layers))
    pulled = PulledImage(parse_reference(IMAGE), digest_of(b""), b"", info, tmp_path)

    is_screen(
        f"{summary(pulled, 2.31)}\n",
        """
        pulled registry.corp:5443/team/app:2026-11-29: 151.1 MB in 2.3 s (65.4 MB/s)
        """,
    )


def cannot(number: int, port: int) -> CommandError:
    """As a daemon says it of the setting with the longest name."""
    error = CannotListen("10.99.0.1", port, OSError(number, os.strerror(number)))
    what = f"proxy.exchange_listen = 10.99.0.1:{port}"
    code, message, hint = explain_listening(error, what, "--proxy-exchange-listen")
    return CommandError(message, code, hint)


ERRORS: dict[str, tuple[Exception, str]] = {
    "a full disk": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/images"),
        """
        p2pdist: /srv/images: no space left on device
        hint: make room there, or choose another place
        """,
    ),
    "a port in use": (
        cannot(errno.EADDRINUSE, 15101),
        """
        p2pdist: proxy.exchange_listen = 10.99.0.1:15101: something else listens there
        hint: see `ss -ltnp 'sport = :15101'`, or choose another --proxy-exchange-listen
        """,
    ),
    "a foreign address": (
        cannot(errno.EADDRNOTAVAIL, 15101),
        """
        p2pdist: proxy.exchange_listen = 10.99.0.1:15101: no address of this host
        hint: `ip -brief address` lists those it has; 0.0.0.0:15101 is all of them
        """,
    ),
    "a low port": (
        cannot(errno.EACCES, 443),
        """
        p2pdist: proxy.exchange_listen = 10.99.0.1:443: ports below 1024 are for root
        hint: choose a higher --proxy-exchange-listen, or grant CAP_NET_BIND_SERVICE
        """,
    ),
    "a setting that is lacking": (
        ConfigError("cluster.secret_file is not set; `p2pdist keys init` makes one"),
        """
        p2pdist: cluster.secret_file is not set; `p2pdist keys init` makes one
        hint: `p2pdist config show --origin` says where values come from
        """,
    ),
    "another platform": (
        CommandError(
            "docker.io/library/app:1 has no image for linux/s390x",
            Exit.NOT_FOUND,
            "it has linux/amd64, linux/arm64/v8; choose one with --platform",
        ),
        """
        p2pdist: docker.io/library/app:1 has no image for linux/s390x
        hint: it has linux/amd64, linux/arm64/v8; choose one with --platform
        """,
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, expected = ERRORS[name]

    _fail(error, debug=False)

    is_screen(capsys.readouterr().err, expected)
