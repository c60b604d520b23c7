"""What `p2pdist config verify` finds in settings that can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pdist.cli.config import verify
from p2pdist.cli.verify import problems
from p2pdist.errors import ConfigError
from p2pdist.model.private_places import parse_private_place
from p2pdist.process.ca import make_ca
from p2pdist.process.clock import unix_s
from p2pdist.process.keys import make_keys
from p2pdist.registry.reading.entries import upstream_entries
from p2pdist.settings import Cluster, Peer, Settings, StoreSection, Tracker, Upstream


def test_keys_in_a_file_are_keys_enough(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    cluster = Cluster(made.secret_file, proxy_keys_file=tmp_path / "proxy.pub")

    assert problems(Settings(cluster=cluster)) == ([], [])


def test_a_file_of_keys_that_is_not_there_keeps_daemons_from_starting(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    cluster = Cluster(made.secret_file, proxy_keys_file=tmp_path / "elsewhere.pub")

    errors, doubts = problems(Settings(cluster=cluster))

    assert errors == [
        f"cluster.proxy_keys_file: {tmp_path}/elsewhere.pub: No such file or directory"
    ]
    assert doubts == []


def test_no_keys_at_all_are_doubtful(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    settings = replace(Settings(), cluster=Cluster(made.secret_file))

    errors, doubts = problems(settings)

    assert errors == []
    assert "a peer would believe no chunk map" in doubts[0]


def of(tmp_path: Path, *upstreams: Upstream, **others: object) -> tuple[list[str], list[str]]:
    made = make_keys(tmp_path / "keys")
    cluster = Cluster(made.secret_file, (made.public_key,))
    return problems(Settings(cluster=cluster, upstream=upstreams, **others))  # type: ignore[arg-type]  # fields of Settings


def test_two_tables_for_one_registry_are_refused(tmp_path: Path) -> None:
    errors, _ = of(tmp_path, Upstream("docker.io"), Upstream("index.docker.io", username="u"))

    assert errors == [
        "two [[upstream]] tables for one registry, docker.io and index.docker.io; leave one"
    ]


def test_each_registry_with_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    secret = {"username": "u", "password_file": tmp_path / "none", "access": "shared"}
    errors, _ = of(
        tmp_path,
        Upstream("a.test", **secret),  # type: ignore[arg-type]  # fields of Settings
        Upstream("b.test", ca_file=tmp_path / "none"),
        Upstream("c.test", auth_file=tmp_path / "none", access="shared"),
    )

    assert [error.partition(":")[0] for error in errors] == [
        "upstream a.test",
        "upstream b.test",
        "upstream c.test",
    ]


def test_private_addresses_that_would_be_refused_are_doubtful(tmp_path: Path) -> None:
    place = parse_private_place("10.0.0.0/8")
    errors, doubts = of(
        tmp_path,
        Upstream("a.test", auth_hosts=("10.0.0.5",)),
        Upstream("b.test", auth_hosts=("10.0.0.5",), allow_private=(place,)),
        Upstream("c.test", "http://169.254.0.1:5000"),
        Upstream("d.test", "http://10.0.0.1:5000"),
    )

    assert errors == []
    assert doubts == [
        "upstream a.test: auth_hosts has 10.0.0.5, which is private and not named in allow_private",
        "upstream c.test: url has 169.254.0.1, which is never asked",
    ]


def test_private_registries_without_certificates_are_doubtful(tmp_path: Path) -> None:
    private = Upstream("r.test", access="passthrough")

    errors, doubts = of(tmp_path, private, Upstream("docker.io"))
    certified = Peer(identity_dir=tmp_path / "none")

    assert errors == []
    (doubt,) = doubts
    assert doubt.startswith('upstream r.test has access = "passthrough", and neither')
    assert of(tmp_path / "2", private, peer=certified)[1] == []


def test_certificates_that_are_required_and_not_there_keep_daemons_from_starting(
    tmp_path: Path,
) -> None:
    made = make_keys(tmp_path / "keys")
    strict = Cluster(made.secret_file, (made.public_key,), require_identity=True)
    signing = Tracker(ca_dir=tmp_path / "ca", join="t:5201")
    make_ca(tmp_path / "ca", unix_s())

    assert problems(Settings(cluster=strict))[0] == [
        "cluster.require_identity is set, but none of peer.identity_dir, proxy.identity_dir, "
        "tracker.identity_dir is: no daemon starts"
    ]
    assert of(tmp_path / "2", tracker=signing)[0] == [
        "tracker.ca_dir is set, but tracker.identity_dir is not"
    ]
    assert of(tmp_path / "3", tracker=Tracker(join="t:5201"))[0] == [
        "tracker.join is set, but tracker.ca_dir is not"
    ]


def test_a_size_without_its_unit_is_doubtful(tmp_path: Path) -> None:
    _, doubts = of(tmp_path, Upstream("a.test"), store=StoreSection(max_bytes=50))

    assert doubts == ["store.max_bytes is 50 bytes: larger layers are not kept"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tracker]\nfederation = ["10.1.0.2:5200"]', "expected tcp://host:port"),
        ('[[upstream]]\nhost = "q.io"\nurl = "quay.io"', "URL that starts with http"),
        ('[[upstream]]\nhost = "https://ghcr.io"', "no scheme: write 'ghcr.io'"),
        ('[[upstream]]\nhost = "docker.io/library"', "no path: write 'docker.io'"),
        ('[[upstream]]\nhost = "r.io"\nauth_hosts = ["https://a.io"]', "no scheme"),
        ("[store]\nmax_bytes = 0", "size above 0"),
        ('[peer]\nproxies = ["http://10.0.0.1:5100/v2"]', "no path follows"),
        ('[proxy]\nparents = ["10.0.0.1:5100"]', "URL that starts with http"),
        ('[proxy]\njob_trackers = ["tcp://10.0.0.2:5209"]', "URL that starts with http"),
        ('[peer]\ndefault_upstream = "http://r.io"', "no scheme"),
    ],
)
def test_what_a_daemon_would_trip_over_is_named_with_its_setting(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)

    result = CliRunner().invoke(verify, ["--config", str(path)])

    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert str(result.exception).startswith(str(path))


def test_daemons_refuse_a_second_table_too(tmp_path: Path) -> None:
    twice = Settings(upstream=(Upstream("a.test"), Upstream("a.test")))

    with pytest.raises(ConfigError, match=r"two .* a\.test; leave one"):
        upstream_entries(twice, with_secrets=False)
