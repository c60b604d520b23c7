"""What passes the border is written as it is; what a file could not hold does not pass."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pdist.engines import containerd, containers_image, docker
from p2pdist.engines.options import Options, check_options
from p2pdist.errors import ConfigError

PATH = Path("/etc/file")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ODD = st.text(st.sampled_from(list("aZ09.-_:[]{}\"'\\ \t\n\r\0#@/?=%\x7fé")), max_size=12)
MIRRORS = st.one_of(
    st.from_regex(r"https?://[a-z0-9.-]{1,20}:[0-9]{1,5}/?", fullmatch=True),
    st.ip_addresses(v=6).map(lambda address: f"http://[{address}]:5300"),
    st.tuples(ODD, st.sampled_from([":5300", ":", ""])).map(
        lambda parts: "http://" + "".join(parts)
    ),
    TEXT,
)
BAD = [
    'http://evil"x:80',
    "http://e\\vil:80",
    "http://a b:1",
    "http://ex]ample:80",
    'http://127.0.0.1:5300"] evil=["x',
    "http://127.0.0.1:53\n00",
    "http://127.0.0.1:5300\n",
    "http://x#:80",
    "http://[:::::]:80",
    "http://[1]:80",
    "http://a..b:80",
    "http://-a:80",
    "http://a:0",
    "http://a:65536",
    "http://a:٥",
    "http://:80",
    "",
]


def holds(options: Options) -> None:
    """Each file that an engine gets parses, and has exactly the mirror and the registries."""
    drop_in = tomllib.loads(containers_image.render(options).decode())
    assert drop_in == {
        "registry": [
            {
                "prefix": name,
                "location": name,
                "mirror": [
                    {
                        "location": f"{options.address}/{name.replace(':', '_')}",
                        "insecure": options.plain_http,
                    }
                ],
            }
            for name in options.registries
        ]
    }
    for before in (None, b'# kept\nserver = "https://x.test"\n[host."https://m.test"]\n'):
        hosts = containerd.add_host(before, options, PATH)
        assert next(iter(tomllib.loads(hosts.decode())["host"])) == options.mirror
        assert (containerd.remove_host(hosts, PATH) or b"") == (before or b"")
    assert json.loads(docker.add(None, options, PATH)) == {"registry-mirrors": [options.mirror]}


@given(mirror=MIRRORS, registry=st.one_of(st.just("R.test:5000"), ODD))
def test_what_passes_is_what_the_files_hold(mirror: str, registry: str) -> None:
    try:
        options = check_options(Options(mirror, ("docker.io", registry)))
    except ConfigError:
        return

    assert options == check_options(options)
    assert options.mirror.isascii()
    assert options.mirror.isprintable()
    holds(options)


@given(mirror=TEXT, registries=st.lists(TEXT, unique=True, max_size=3))
@example(mirror="# p2pdist: end", registries=[])  # the words that end a block of ours
@example(mirror="\n# p2pdist: end\n", registries=["# p2pdist: end"])
def test_what_would_pass_by_mistake_is_still_quoted(mirror: str, registries: list[str]) -> None:
    holds(Options(mirror, tuple(registries)))


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ("http://127.0.0.1:5300", "http://127.0.0.1:5300"),
        ("HTTPS://Peer.Corp:05300/", "https://peer.corp:5300"),
        ("https://peer:443", "https://peer:443"),
        ("http://[::1]:5300", "http://[::1]:5300"),
    ],
)
def test_a_mirror_has_one_spelling(given: str, held: str) -> None:
    assert check_options(Options(given)).mirror == held


@pytest.mark.parametrize("mirror", BAD)
def test_a_mirror_that_no_file_should_hold_is_refused(mirror: str) -> None:
    with pytest.raises(ConfigError, match="--mirror"):
        check_options(Options(mirror))


@pytest.mark.parametrize("engine", ["docker", "containerd", "podman", "crio"])
def test_it_is_a_usage_error_without_a_traceback(engine: str, tmp_path: Path) -> None:
    arguments = ["runtime", "install", "--engine", engine, "--root", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "p2pdist.cli.main", *arguments, "--mirror", "http://ex]ample:80"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "hint" not in done.stderr
    assert not list(tmp_path.iterdir())
