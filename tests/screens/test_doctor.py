"""`p2pdist doctor`: all well, and two mistakes with what mends them."""

from __future__ import annotations

from p2pdist.cli.doctor import finding_lines
from p2pdist.doctor.findings import Finding, failed, passed, registries_text, warned
from p2pdist.model.health import RULES, Reason
from tests.screens.golden import COLUMNS, is_screen

TRACKER = "tcp://10.0.0.2:5200"
PROXY = "http://10.0.0.1:5100"
WELL = [
    passed("settings", "those of the peer that runs at 127.0.0.1:5309"),
    passed("cluster secret", "fingerprint 1f09aa, for its owner only"),
    passed("proxy keys", "1 believed"),
    passed("upstreams", registries_text(1)),
    passed("port", "127.0.0.1:5300 is served by the running peer"),
    passed("port", "0.0.0.0:5301 is served by the running peer"),
    passed("tracker", f"{TRACKER} answers"),
    passed("clock", f"this clock is 0 s ahead of {TRACKER} (±0.0 s)"),
    passed("proxy", f"{PROXY} answers and serves {registries_text(3)}"),
    passed("proxy key", f"{PROXY} signs with a key that is believed"),
    passed("exchange", "10.0.0.1:5101 is reached"),
    passed("running", "the peer at 127.0.0.1:5309 has nothing to complain"),
    passed("state", "/var/lib/p2pdist-peer can be written"),
    passed("disk", "212.4 GB free for 50.0 GB of blobs"),
    passed("docker", "asks the peer at 127.0.0.1:5300 first"),
]
KEY = "0123456789abcdef" * 4


def replaced(*others: Finding) -> list[Finding]:
    by_check = {finding.check: finding for finding in others}
    return [by_check.get(finding.check, finding) for finding in WELL]


def test_all_well() -> None:
    is_screen("doctor-well", finding_lines(WELL, COLUMNS))


def test_two_mistakes() -> None:
    text = f"{PROXY} signs with the key {KEY}, which is not among cluster.proxy_keys"
    key = failed("proxy key", text, RULES[Reason.WRONG_KEY].fix)
    fix = "p2pdist runtime install --engine docker"
    engine = warned("docker", "does not ask the peer at 127.0.0.1:5300", fix)

    is_screen("doctor-mistakes", finding_lines(replaced(key, engine), COLUMNS))


def test_where_it_is_searched_each_finding_stays_in_one_line() -> None:
    long = warned("running", "word " * 40, "more " * 40)

    assert len(finding_lines([long], None)) == 2
    assert len(finding_lines([long], COLUMNS)) > 2
