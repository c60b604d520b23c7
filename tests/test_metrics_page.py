"""docs/metrics.md and what daemons export: the same names, types, labels and label values.

A cell of labels there is `name`, or `name: one, other` where the values are a closed set, and `;`
between labels.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from p2pdist.model.ids import HostId
from p2pdist.model.jobs import JobSpec
from p2pdist.model.members import Address, Role
from p2pdist.peer.daemon import running_peer
from p2pdist.process.metrics import SampleCollector
from p2pdist.registry.serving.pull_metrics import KINDS, OUTCOMES
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Replicate
from p2pdist.streaming.snapshotter import daemon
from p2pdist.tracker.job_metrics import job_samples
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.layers_mount import Mounted
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, Fault
from tests.process.identities import TestCa
from tests.tracker.core.jobs.fleet import UNIX_S, Fleet, image

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs" / "metrics.md").read_text()
SECTIONS: Final = {
    "peer": ("Every daemon", "Peer, proxy and tracker", "Peer and proxy"),
    "proxy": ("Every daemon", "Peer, proxy and tracker", "Peer and proxy", "Proxy"),
    "tracker": ("Every daemon", "Peer, proxy and tracker", "Tracker"),
    "snapshotter": ("Every daemon", "Snapshotter"),
}
ROLES: Final = tuple(SECTIONS)
OF_JOBS: Final = {
    "p2pdist_prewarm_hosts",
    "p2pdist_prewarm_total_bytes",
    "p2pdist_prewarm_missing_bytes",
    "p2pdist_prewarm_eta_seconds",
    "p2pdist_prewarm_deadline_timestamp_seconds",
}
DEADLINE_S: Final = 20.0
WITH_THEIR_FIRST_WORD: Final = {
    "peer": ('skew_seconds{to="proxy"}', 'skew_seconds{to="tracker"}'),
    "proxy": ('skew_seconds{to="tracker"}', "p2pdist_replication_lag_seconds{"),
    "tracker": ("p2pdist_fleet_bans", "p2pdist_fleet_received_bytes{", "p2pdist_fleet_sent_bytes{"),
}
Key = tuple[str, str]
"""A metric and one of its labels."""
WITH_THEIR_FIRST_EVENT: Final[dict[Key, set[str]]] = {
    ("p2pdist_cluster_secret", "place"): {"second"},
    ("p2pdist_pull_duration_seconds", "outcome"): set(OUTCOMES),
    ("p2pdist_pull_duration_seconds", "kind"): set(KINDS),
    ("p2pdist_pull_longest_wait_seconds", "kind"): set(KINDS),
}
"""Label values that the page names and that are not there from the start."""


@dataclass
class Entry:
    """A metric, of the page or of a daemon."""

    type: str
    labels: dict[str, set[str]] = field(default_factory=dict)
    """On the page without values where any may come."""
    series: int = 0
    of_upstreams: int = 0
    """Series with the label `upstream`."""


def of_page(role: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for section in SECTIONS[role]:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
        for names, kind, labels in re.findall(
            r"^\| (`.+?) \| (\w+) \|(.*?)\| ", text, re.MULTILINE
        ):
            parts = [part.partition(":") for part in labels.split(";") if part.strip()]
            values = {name.strip(): set(re.findall(r"\w+", some)) for name, _, some in parts}
            for name in re.findall(r"`(\w+)`", names):
                assert name not in found, f"{name} has two rows"
                found[name] = Entry(kind, values)
    return found


def of_families(families: Iterable[Metric]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        entry = found.setdefault(name, Entry(family.type))
        entry.series += len(family.samples)
        for sample in family.samples:
            entry.of_upstreams += "upstream" in sample.labels
            for label, value in sample.labels.items():
                if label != "le":
                    entry.labels.setdefault(label, set()).add(value)
    return found


def of_text(text: str) -> dict[str, Entry]:
    return of_families(text_string_to_metric_families(text))


Exported = dict[str, dict[str, Entry]]
"""By role."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """All that there is: a registry that tells its rate limit, a rule, a job with a deadline."""
    texts = asyncio.run(_scraped(tmp_path_factory.mktemp("metrics")))
    entries = {role: of_text(text) for role, text in texts.items()}
    fleet = _fleet_with_a_job()
    jobs = of_families(SampleCollector([lambda: job_samples(fleet.core.jobs)]).collect())
    entries["tracker"] = {**jobs, **entries["tracker"]}
    return entries


async def _scraped(directory: Path) -> dict[str, str]:
    async with FakeRegistry() as registry, aiohttp.ClientSession(auto_decompress=False) as client:
        registry.add_image("library/app", "1", [random_bytes(3 << 20, 1)])
        registry.faults["1"] = Fault(headers={"ratelimit-remaining": "76;w=21600"})
        async with open_lab(directory, {"docker.io": registry.url}) as lab:
            ca = TestCa(directory)
            lab.identities = {
                role: ca.directory(role, HostId(f"{number:032x}"))
                for number, role in enumerate(("tracker", "proxy", "peer"))
            }
            lab.ca_dir = ca.keep()
            return await _of_daemons(lab, client)


async def _of_daemons(lab: Lab, client: aiohttp.ClientSession) -> dict[str, str]:
    tracker = await lab.tracker()
    settings = lab.settings("proxy")
    rule = Replicate(name="app", images=("docker.io/library/app:1",), dcs=("dc1",))
    own = replace(settings.proxy, job_trackers=(url_of(tracker.admin),))
    settings = replace(settings, proxy=own, replicate=(rule,))
    proxy = await lab.stack.enter_async_context(running_proxy(settings))
    lab.proxies.append(url_of(proxy.registry))
    settings = lab.settings("peer")
    settings = replace(settings, peer=replace(settings.peer, direct=True))
    peer = await lab.stack.enter_async_context(running_peer(settings))
    await pull(client, url_of(peer.mirror))
    admins = {"tracker": tracker.admin, "proxy": proxy.admin, "peer": peer.admin}
    pages = {
        role: await _page(client, url_of(admin), WITH_THEIR_FIRST_WORD[role])
        for role, admin in admins.items()
    }
    return {**pages, "snapshotter": await _of_snapshotter(lab, client)}


async def _of_snapshotter(lab: Lab, client: aiohttp.ClientSession) -> str:
    settings = lab.settings("snapshotter")
    own = replace(
        settings.snapshotter,
        socket=settings.host.state_dir / "s.sock",
        admin_listen=Address("127.0.0.1", 0),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(daemon, "LayersMount", Mounted)
        async with daemon.running_snapshotter(replace(settings, snapshotter=own)) as running:
            return await _page(client, url_of(running.admin), ())


async def _page(client: aiohttp.ClientSession, url: str, wanted: Sequence[str]) -> str:
    """The page once it has what comes with the first word from others."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with client.get(f"{url}/metrics", raise_for_status=True) as answer:
                text = await answer.text()
            if all(name in text for name in wanted):
                return text
            await asyncio.sleep(0.2)


def _fleet_with_a_job() -> Fleet:
    """In virtual time, in the middle of it."""
    fleet = Fleet()
    for role in (Role.PROXY, Role.PEER, Role.PEER):
        fleet.add(role=role)
    fleet.run(0.1)
    job = fleet.submit(JobSpec([image()], deadline_unix_s=UNIX_S + 3600))
    while all(tally.eta_s is None for tally in job.tallies.values()):
        assert job.state != "done"
        fleet.run(0.05)
    return fleet


@pytest.mark.parametrize("role", ROLES)
def test_the_page_names_what_a_daemon_exports_and_nothing_else(
    exported: Exported, role: str
) -> None:
    assert sorted(exported[role]) == sorted(of_page(role))


@pytest.mark.parametrize("role", ROLES)
def test_types_and_labels_are_those_of_the_page(exported: Exported, role: str) -> None:
    shown = {name: (e.type, sorted(e.labels)) for name, e in exported[role].items()}

    assert shown == {name: (e.type, sorted(e.labels)) for name, e in of_page(role).items()}


def test_closed_sets_of_label_values_are_those_of_the_page(exported: Exported) -> None:
    """All daemons together: none has each role, or asks each kind of clock."""
    shown: defaultdict[Key, set[str]] = defaultdict(set)
    listed: dict[Key, set[str]] = {}
    for role in ROLES:
        for name, entry in of_page(role).items():
            closed = {(name, label): values for label, values in entry.labels.items() if values}
            listed.update(closed)
            for key in closed:
                shown[key] |= exported[role][name].labels[key[1]]
    for key, values in WITH_THEIR_FIRST_EVENT.items():
        shown[key] |= values

    assert shown == listed


@pytest.mark.parametrize("role", ROLES)
def test_the_page_says_how_many_series_there_are(exported: Exported, role: str) -> None:
    (about,) = re.findall(rf"an? {role} (?:exports )?about (\d+)", PAGE, re.IGNORECASE)
    of_jobs = sum(entry.series for name, entry in exported[role].items() if name in OF_JOBS)
    series = sum(entry.series for entry in exported[role].values()) - of_jobs

    assert 0.93 * int(about) <= series <= 1.07 * int(about)


@pytest.mark.parametrize("role", ["peer", "proxy"])
def test_the_page_says_how_many_series_a_registry_has(exported: Exported, role: str) -> None:
    numbers = dict(zip(("peer", "proxy"), re.findall(r"\((\d+) for a registry", PAGE), strict=True))
    entries = exported[role].values()
    limits = exported[role].get("p2pdist_upstream_ratelimit_remaining")

    series = sum(entry.of_upstreams for entry in entries) - (limits.series if limits else 0)

    assert series == int(numbers[role])
