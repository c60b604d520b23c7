"""Every way in which text of strangers reaches the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from p2pdist.cli import doctor, main, status
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.prewarming import progress as prewarming
from p2pdist.cli.pulling import progress as pulling
from p2pdist.doctor.findings import failed
from p2pdist.model.ids import digest_of
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

EVIL = "\x1b]0;OWNED\x07\x1b[2J[/none] [link=http://x]\x9b31m gone"
DIGEST = digest_of(b"")


def fail(error: Exception) -> None:
    main._fail(error, debug=False)


def show_status() -> None:
    tracker = {"role": "tracker", "host_id": EVIL, "dc": EVIL, "uptime_s": 1.0, "leases": 0}
    tracker |= {"hosts_connected": 1, "swarms": {"active": 0}}
    tracker["degraded"] = [{"reason": EVIL, "for_s": 1.0, "detail": EVIL, "fix": EVIL}]
    status.show([tracker])


WAYS: dict[str, Callable[[], None]] = {
    "a command fails": lambda: fail(CommandError(EVIL, Exit.UPSTREAM, EVIL)),
    "a command crashes": lambda: fail(OSError(EVIL)),
    "status": show_status,
    "doctor": lambda: print("\n".join(doctor.finding_lines([failed("tracker", EVIL, EVIL)], None))),
    "a pull goes on, in lines": lambda: pulling.PlainLines().retried(DIGEST, EVIL),
    "a pull goes on, under bars": lambda: pulling.Bars().retried(DIGEST, EVIL),
    "a job": lambda: prewarming.echo([EVIL]),
}


@pytest.mark.faults
@pytest.mark.parametrize("way", WAYS)
def test_it_reaches_the_terminal_as_plain_text(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded(77, "escape sequences of a stranger", way) as record:
        WAYS[way]()

        out, err = capsys.readouterr()
        assert "OWNED" in out + err
        assert "\x1b" not in (out + err).replace("\x1b[31m\x1b[1mFAIL\x1b[0m", "")
        assert "\x9b" not in out + err
        assert "\x07" not in out + err
        record.outcome = "plain text"


async def test_a_platform_of_an_index_is_plain_text() -> None:
    from p2pdist.cli.pull import _Pull, _run
    from p2pdist.cli.pulling.client import Platform
    from p2pdist.oci.reference import parse_reference

    async with FakeRegistry() as registry:
        registry.add_index("library/app", "1", {EVIL: [b"layer"]})
        with pytest.raises(CommandError) as caught:
            await asyncio.wait_for(
                _run(
                    _Pull(
                        parse_reference("app:1"),
                        Platform("linux", "amd64"),
                        registry.url,
                        None,
                        insist=True,
                    ),
                    pulling.Silent(),
                    None,
                ),
                30,
            )

    assert "owned" in caught.value.hint.lower()
    assert "\x1b" not in caught.value.hint
