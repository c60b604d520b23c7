"""Settings from file, variables and flags: who wins, and what is wrong said at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.members import Address
from p2pdist.settings import Settings, Upstream, all_leaves, leaves_of, show
from p2pdist.settings_kinds import parse_address, parse_duration, parse_size
from p2pdist.settings_load import load_settings
from p2pdist.settings_page import render

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_without_anything_all_is_default() -> None:
    loaded = load_settings(environ={})

    assert loaded.settings == Settings()
    assert loaded.origins == {}


def test_a_flag_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[host]\ndc = "file"\nrack = "file"\n[log]\nlevel = "debug"\n')
    environ = {"P2PDIST_HOST__DC": "variable", "P2PDIST_HOST__RACK": "variable"}

    loaded = load_settings(path, flags={"host.dc": "flag"}, environ=environ)

    assert loaded.settings.host.dc == "flag"
    assert loaded.settings.host.rack == "variable"
    assert loaded.settings.log.level == "debug"
    assert loaded.origins == {
        "host.dc": "flag --host-dc",
        "host.rack": "variable P2PDIST_HOST__RACK",
        "log.level": str(path),
    }


def test_every_fault_is_named_in_one_go(tmp_path: Path) -> None:
    path = write(tmp_path, '[hots]\n[peer]\nlisten = "nowhere"\n[store]\nmax_bites = 1\n')

    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ={"P2PDIST_LOG__LEVL": "info"})

    text = str(caught.value)
    assert "unknown setting [hots]; did you mean [host]?" in text
    assert "peer.listen = 'nowhere': expected host:port" in text
    assert "unknown setting store.max_bites; did you mean store.max_bytes?" in text
    assert "unknown setting P2PDIST_LOG__LEVL; did you mean P2PDIST_LOG__LEVEL?" in text


def test_a_file_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        load_settings(write(tmp_path, "host = = 1"), environ={})


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(Path("/nowhere/config.toml"), environ={})


def test_upstreams_replace_the_default_one(tmp_path: Path) -> None:
    path = write(tmp_path, '[[upstream]]\nhost = "ghcr.io"\n[[upstream]]\nhost = "quay.io"\n')

    upstreams = load_settings(path, environ={}).settings.upstream

    assert [u.host for u in upstreams] == ["ghcr.io", "quay.io"]
    assert upstreams[0].base_url == "https://ghcr.io"


def test_docker_hub_is_the_upstream_by_default() -> None:
    (hub,) = Settings().upstream

    assert (hub.host, hub.base_url) == ("docker.io", "https://registry-1.docker.io")


def test_private_places_of_an_upstream_are_read_and_shown_as_written(tmp_path: Path) -> None:
    written = ["10.0.0.0/8", "Minio.corp:9000"]
    text = f'[[upstream]]\nhost = "r.test"\nallow_private = {json.dumps(written)}\n'

    (upstream,) = load_settings(write(tmp_path, text), environ={}).settings.upstream

    assert show(upstream.allow_private) == written


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("true", r'name the hosts or networks, such as \["10.0.0.0/8"\]'),
        ("false", "name the hosts"),
        ('["10.0.0.0/33"]', "no host, address or network"),
    ],
)
def test_private_places_that_are_none_are_refused(tmp_path: Path, value: str, hint: str) -> None:
    text = f'[[upstream]]\nhost = "r.test"\nallow_private = {value}\n'

    with pytest.raises(ConfigError, match=hint):
        load_settings(write(tmp_path, text), environ={})


def test_an_upstream_needs_a_host(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="upstream 1 has no host"):
        load_settings(write(tmp_path, '[[upstream]]\nurl = "http://x"\n'), environ={})


@pytest.mark.parametrize(
    ("text", "nbytes"), [("50GB", 50_000_000_000), ("20GiB", 20 << 30), ("1.5k", 1500), (7, 7)]
)
def test_sizes(text: object, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["lots", "-1", "", "1XB", True, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5m", 300), (2, 2), ("1d", 86400)])
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-1s", None, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_addresses_of_both_families() -> None:
    assert parse_address("127.0.0.1:5300") == Address("127.0.0.1", 5300)
    assert parse_address("[::1]:5300") == Address("::1", 5300)


@pytest.mark.parametrize("text", ["5300", "host", "host:99999", ":1", "host:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        parse_address(text)


def test_everything_listens_on_loopback_until_told_otherwise() -> None:
    listens = [leaf.default for leaf in all_leaves() if leaf.key.endswith("listen")]

    assert len(listens) == 9
    assert {address.host for address in listens} == {"127.0.0.1"}


def test_every_setting_has_help_that_is_a_sentence() -> None:
    for leaf in [*all_leaves(), *leaves_of("upstream", Upstream)]:
        assert re.fullmatch(r"[A-Z`a-z].*[.]", leaf.help), leaf.name


def test_the_reference_page_is_current() -> None:
    """`python -m p2pdist.settings_page > docs/configuration.md` after a change of settings."""
    assert PAGE.read_text() == render()


def test_rules_are_read_as_often_as_they_are_there(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[[replicate]]\nname = "web"\nimages = ["a.io/b/*"]\npoll = "5m"\ndc_rate = "1MB/s"\n'
        '[[replicate]]\nname = "db"\nimages = ["a.io/db:1"]\npriority = -3\n',
    )

    web, db = load_settings(path, environ={}).settings.replicate

    assert (web.name, web.poll, web.dc_rate) == ("web", 300.0, 1_000_000)
    assert (db.images, db.priority) == (("a.io/db:1",), -3)


def test_a_rule_needs_a_name_and_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, '[[replicate]]\npriority = "x"\n'), environ={})

    text = str(caught.value)
    assert "replicate 1 has no name" in text
    assert "replicate 1 has no images" in text
    assert "priority = 'x': expected a whole number" in text


def test_a_limit_of_links_is_one_or_more(tmp_path: Path) -> None:
    good = write(tmp_path, "[proxy]\nlinks_max = 10\n[peer]\nlinks_max = 1\n")
    settings = load_settings(good, environ={}).settings
    assert (settings.proxy.links_max, settings.peer.links_max) == (10, 1)

    with pytest.raises(ConfigError, match=r"links_max = 0: expected a whole number of 1 or more"):
        load_settings(write(tmp_path, "[proxy]\nlinks_max = 0\n"), environ={})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("a", "b"), ("a", "b")),
        (("a,b", "c"), ("a", "b", "c")),
        ((" a , b,",), ("a", "b")),
        ("a,b", ("a", "b")),
        (["a,b", "c"], ("a,b", "c")),
    ],
    ids=["flags", "flags with commas", "blanks", "a variable", "a file's own list"],
)
def test_lists_add_up(given: object, expected: tuple[str, ...]) -> None:
    loaded = load_settings(flags={"host.http_names": given}, environ={})

    assert loaded.settings.host.http_names == expected


def test_a_choice_is_taken_in_any_case() -> None:
    loaded = load_settings(environ={"P2PDIST_LOG__LEVEL": "DEBUG", "P2PDIST_LOG__FORMAT": "Json"})

    assert (loaded.settings.log.level, loaded.settings.log.format) == ("debug", "json")


def test_flags_show_what_they_take() -> None:
    metavars = {leaf.name: leaf.kind.metavar for leaf in all_leaves()}

    assert metavars["log.level"] == "debug|info|warning|error"
    assert metavars["peer.direct"] == "true|false"
    assert metavars["peer.trackers"] == "TCP://HOST:PORT[,...]"
    assert metavars["host.http_names"] == "TEXT[,...]"
    assert metavars["peer.listen"] == "HOST:PORT"


def test_a_wrong_part_of_a_list_is_shown_as_it_was_given() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags={"peer.trackers": ("tcp://a:1", "b")}, environ={})

    assert str(caught.value).startswith("flag --peer-trackers: peer.trackers = 'tcp://a:1,b': ")
