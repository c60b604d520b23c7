"""`p2pdist pull` against a real peer: outputs, resumes, refusals."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.pull import pull
from p2pdist.cli.pulling.outputs import parse_output
from p2pdist.errors import ConfigError
from p2pdist.model.ids import digest_of
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry, Fault
from tests.faults.records import recorded


def layer(name: str, size: int, *, packed: bool) -> bytes:
    """A tar with one file; gzip or plain."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(random_bytes(size, size)))
    return gzip.compress(out.getvalue(), 1, mtime=0) if packed else out.getvalue()


LAYERS = [layer("base", 700_000, packed=True), layer("app", 90_000, packed=False)]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add_image("library/app", "1", LAYERS)
        yield registry


@pytest.fixture
async def lab(registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path / "lab", {"docker.io": registry.url}) as lab:
        yield lab


@pytest.fixture
async def endpoint(lab: Lab) -> str:
    await lab.proxy()
    return url_of((await lab.peer("peer")).mirror)


async def run(*arguments: str) -> Result:
    """In a thread: the command runs a loop of its own, the peer needs this one."""
    return await asyncio.to_thread(CliRunner().invoke, pull, list(arguments))


async def test_without_output_the_digest_is_all_that_is_printed(
    registry: FakeRegistry, endpoint: str
) -> None:
    result = await run("app:1", "--endpoint", endpoint, "--quiet")

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{digest_of(manifest_of(registry))}\n"
    assert result.stderr == ""


def manifest_of(registry: FakeRegistry) -> bytes:
    return registry._manifests["library/app", "1"][1]


async def test_an_oci_layout_holds_the_image(
    registry: FakeRegistry, endpoint: str, tmp_path: Path
) -> None:
    place = tmp_path / "layout"

    result = await run("app:1", "--endpoint", endpoint, "-o", f"oci:{place}")

    assert result.exit_code == 0, result.output
    index = json.loads((place / "index.json").read_text())
    (entry,) = index["manifests"]
    assert entry["digest"] == digest_of(manifest_of(registry))
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "1"
    for path in (place / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert len(list((place / "blobs" / "sha256").iterdir())) == 4


async def test_a_second_image_is_added_to_a_layout(
    registry: FakeRegistry, endpoint: str, tmp_path: Path
) -> None:
    registry.add_image("library/app", "2", [layer("other", 50_000, packed=True)])
    place = tmp_path / "layout"
    await run("app:1", "--endpoint", endpoint, "-o", f"oci:{place}")

    await run("app:2", "--endpoint", endpoint, "-o", f"oci:{place}")

    index = json.loads((place / "index.json").read_text())
    names = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
    assert names == ["1", "2"]


async def test_a_docker_archive_holds_plain_layers_under_their_names(
    registry: FakeRegistry, endpoint: str, tmp_path: Path
) -> None:
    place = tmp_path / "app.tar"

    result = await run("app:1", "--endpoint", endpoint, "-o", f"docker-archive:{place}")

    assert result.exit_code == 0, result.output
    with tarfile.open(place) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        (entry,) = json.loads(member.read())
        assert entry["RepoTags"] == ["docker.io/library/app:1"]
        assert len(entry["Layers"]) == 2
        for name in entry["Layers"]:
            file = archive.extractfile(name)
            assert file is not None
            assert f"{hashlib.sha256(file.read()).hexdigest()}/layer.tar" == name
    assert sorted(os.listdir(tmp_path)) == ["app.tar", "lab"]


async def test_a_directory_with_other_things_is_left_alone(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo").write_text("mine")

    result = await run("app:1", "--endpoint", endpoint, "-o", f"oci:{tmp_path / 'notes'}")

    assert_fails(result, Exit.USAGE, "neither empty nor an OCI layout")
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["todo"]


async def test_a_body_that_was_cut_goes_on_where_it_ended(
    registry: FakeRegistry,
) -> None:
    """Straight from a registry that cuts the first answer."""
    digest = digest_of(LAYERS[0])
    registry.faults[digest] = Fault(truncate_after=100_000, times=1)

    result = await run("app:1", "--endpoint", registry.url, "--progress", "plain")

    assert result.exit_code == 0, result.output
    assert "interrupted, going on" in result.stderr
    ranges = [a.headers.get("Range") for a in registry.asked if digest in a.path]
    first, again = ranges
    assert first is None
    # How much of a cut body is delivered is the client library's choice.
    assert 0 < int((again or "").removeprefix("bytes=").removesuffix("-")) <= 100_000


async def test_wrong_bytes_are_an_integrity_failure(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.faults[digest_of(LAYERS[0])] = Fault(corrupt_at=5)
    place = tmp_path / "layout"

    result = await run("app:1", "--endpoint", registry.url, "-o", f"oci:{place}")

    assert_fails(result, Exit.INTEGRITY, "came with other bytes")
    assert not place.exists()


async def test_an_unknown_image_is_not_found(endpoint: str) -> None:
    result = await run("app:nope", "--endpoint", endpoint)

    sentence = "docker.io/library/app:nope: the registry knows no such tag"
    assert_fails(result, Exit.NOT_FOUND, sentence)
    assert isinstance(result.exception, CommandError)
    assert result.exception.hint == "check the name"


@pytest.mark.faults
@pytest.mark.parametrize("proxied", [True, False], ids=["proxy", "peer alone"])
@pytest.mark.parametrize(
    ("status", "code", "text", "hint"),
    [
        (
            401,
            Exit.DENIED,
            "to a request without an account",
            "the account of [[upstream]] docker.io",
        ),
        (403, Exit.DENIED, "docker.io answered 403", "the right to read it"),
        (404, Exit.NOT_FOUND, "the registry knows no such", "check the name"),
        (429, Exit.UPSTREAM, "docker.io answered 429", "try again later"),
        (500, Exit.UPSTREAM, "docker.io answered 500", "look at the log of docker.io"),
    ],
)
async def test_what_the_registry_said_reaches_whoever_pulls(
    registry: FakeRegistry,
    lab: Lab,
    status: int,
    code: Exit,
    text: str,
    hint: str,
    proxied: bool,
) -> None:
    """A command has to tell a typing error from an outage, and from a wrong password."""
    way = f"{status}, {'a proxy' if proxied else 'a peer alone'}"
    with recorded(74, "registry refuses or fails, and a command asks", way) as record:
        if proxied:
            await lab.proxy()
        endpoint = url_of((await lab.peer("peer", direct=not proxied)).mirror)
        registry.faults["1"] = Fault(status=status)

        result = await run("app:1", "--endpoint", endpoint)

        error = assert_fails(result, code, text)
        assert hint in error.hint
        assert '{"' not in str(error)
        record.outcome = f"exit {int(code)}, with what the registry said and a fix"


async def test_a_registry_that_is_not_served_is_denied(endpoint: str) -> None:
    result = await run("other.example/app", "--endpoint", endpoint)

    assert_fails(result, Exit.DENIED, "other.example is not")


async def test_an_endpoint_that_is_not_there_names_the_fix() -> None:
    result = await run("app:1", "--endpoint", "http://127.0.0.1:1")

    assert_fails(result, Exit.UPSTREAM, "does not deliver")


async def test_a_platform_is_chosen_from_an_index(registry: FakeRegistry, endpoint: str) -> None:
    _, images = registry.add_index(
        "library/many",
        "1",
        {"amd64": [layer("a", 1000, packed=True)], "arm64": [layer("b", 1000, packed=True)]},
    )

    result = await run("many:1", "--endpoint", endpoint, "--platform", "linux/arm64", "-q")

    assert result.stdout.strip() == images[1].manifest_digest


async def test_a_platform_that_is_not_there_lists_those_that_are(
    registry: FakeRegistry, endpoint: str
) -> None:
    registry.add_index("library/many", "1", {"amd64": [layer("a", 1000, packed=True)]})

    result = await run("many:1", "--endpoint", endpoint, "--platform", "linux/s390x")

    assert_fails(result, Exit.NOT_FOUND, "no image for linux/s390x")
    assert isinstance(result.exception, CommandError)
    assert "linux/amd64" in result.exception.hint


async def test_json_progress_is_one_object_a_line(registry: FakeRegistry, endpoint: str) -> None:
    result = await run("app:1", "--endpoint", endpoint, "--progress", "json")

    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[0]["event"] == "started"
    assert {e["event"] for e in events} == {"started", "advanced", "finished"}
    assert sum(e["event"] == "finished" for e in events) == 3


@pytest.mark.parametrize("text", ["oci", "oci:", "tar:x", "docker-archive"])
def test_an_output_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected oci:DIR or docker-archive:FILE"):
        parse_output(text)


def assert_fails(result: Result, code: Exit, text: str) -> CommandError:
    error = result.exception
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, CommandError), result.output
    assert error.code is code
    assert text in str(error)
    return error


# --- places that others may write -----------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"VICTIM")
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.mkdir()
    return path


def look(path: Path) -> bytes | set[str]:
    """A file's bytes, or the names in a directory."""
    return path.read_bytes() if path.is_file() else {inner.name for inner in path.iterdir()}


@pytest.mark.faults
async def test_links_that_wait_at_temporary_names_are_not_written_through(
    endpoint: str, shared: Path, victim: Path
) -> None:
    layout = shared / "layout"
    for directory in (shared, layout, layout / "blobs" / "sha256"):
        directory.mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    digest = digest_of(LAYERS[0]).partition(":")[2]
    names = ["app.tar.new", "layout/index.json.new", "layout/oci-layout.new"]
    names += [f"layout/blobs/sha256/{digest}{end}" for end in ("", ".new")]
    for name in names:
        (shared / name).symlink_to(victim)

    with recorded(76, "links that wait where a pull writes") as record:
        for output in (f"docker-archive:{shared}/app.tar", f"oci:{layout}"):
            result = await run("app:1", "--endpoint", endpoint, "-o", output)
            assert result.exit_code == 0, result.output

        assert look(victim) == b"VICTIM"
        record.outcome = "both images whole, nothing written through them"
    assert (layout / "blobs" / "sha256" / digest).read_bytes() == LAYERS[0]
    assert not (layout / "blobs" / "sha256" / digest).is_symlink()
    assert look(shared) == {"app.tar", "app.tar.new", "layout"}


async def test_an_own_link_is_written_through(
    endpoint: str, shared: Path, victim: Path, tmp_path: Path
) -> None:
    (shared / "app.tar").symlink_to(victim)
    (shared / "layout").symlink_to(tmp_path / "elsewhere")

    await run("app:1", "--endpoint", endpoint, "-o", f"docker-archive:{shared}/app.tar")
    await run("app:1", "--endpoint", endpoint, "-o", f"oci:{shared}/layout")

    assert tarfile.is_tarfile(victim)
    assert (tmp_path / "elsewhere" / "index.json").is_file()
    assert (shared / "app.tar").is_symlink()
    assert (shared / "layout").is_symlink()


@pytest.mark.parametrize("kind", ["docker-archive", "oci"])
def test_a_link_of_another_user_is_refused(
    kind: str, shared: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = shared / "app"
    link.symlink_to(victim if kind == "docker-archive" else victim.parent)
    if os.geteuid() == 0:
        os.chown(link, 65534, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(CommandError, match="a link of another user"):
        parse_output(f"{kind}:{link}").check()


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_what_is_no_plain_file_is_never_replaced(name: str, shared: Path) -> None:
    os.mkfifo(shared / "pipe")
    (shared / "link").symlink_to("pipe")

    with pytest.raises(CommandError, match="no plain file"):
        parse_output(f"docker-archive:{shared / name}").check()


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
async def test_a_layout_that_leads_elsewhere_is_not_followed(
    endpoint: str, shared: Path, victim: Path, name: str
) -> None:
    elsewhere = victim.parent / "elsewhere"
    elsewhere.mkdir()
    (shared / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (shared / name).parent.mkdir(exist_ok=True)
    (shared / name).symlink_to(elsewhere)

    result = await run("app:1", "--endpoint", endpoint, "-o", f"oci:{shared}")

    assert isinstance(result.exception, ConfigError)
    assert "is a link to" in str(result.exception)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "index",
    [b"", b"[]", b"[" * 100_000, b'{"manifests": {}}', b'{"manifests": [{"annotations": 1}]}'],
)
def test_a_layout_with_a_broken_index_is_refused_before_anything_is_fetched(
    shared: Path, index: bytes
) -> None:
    (shared / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (shared / "index.json").write_bytes(index)

    with pytest.raises(CommandError, match="no index of an OCI layout"):
        parse_output(f"oci:{shared}").check()
