"""How `p2pdist pull` ends: the object for scripts, an archive on stdout, platforms, signals."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import cause_of, explain
from p2pdist.cli.prewarm import prewarm
from p2pdist.cli.pull import pull
from p2pdist.cli.pulling import client
from p2pdist.cli.pulling.outputs import REF_NAME, parse_output
from p2pdist.cli.pulling.workspace import PREFIX
from p2pdist.cli.replicas import replicas
from p2pdist.oci.manifest import DOCKER_MANIFEST, OCI_INDEX
from tests.cli.test_prewarm import until
from tests.cli.test_pull import assert_fails, layer
from tests.fakes.registry import FakeRegistry, Fault
from tests.faults.records import recorded

LAYER = layer("base", 300_000, packed=True)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add_image("library/app", "1", [LAYER])
        yield registry


async def run(registry: FakeRegistry, *arguments: str) -> Result:
    words = [*arguments, "--endpoint", registry.url]
    return await asyncio.to_thread(CliRunner().invoke, pull, words)


# --- what stdout gets -----------------------------------------------------------------------------


async def test_the_object_says_what_was_pulled(registry: FakeRegistry, tmp_path: Path) -> None:
    result = await run(registry, "app:1", "--json", "-q", "-o", f"oci:{tmp_path}/app")

    record = json.loads(result.stdout)
    assert record["exit_code"] == 0
    assert record["image"] == "docker.io/library/app:1"
    assert record["platform"] == "linux/amd64"
    assert record["output"] == f"oci:{tmp_path}/app"
    assert record["size_bytes"] == sum(blob["size_bytes"] for blob in record["blobs"])
    (entry,) = json.loads((tmp_path / "app" / "index.json").read_bytes())["manifests"]
    assert record["digest"] == entry["digest"]


async def test_the_object_says_why_nothing_was_pulled(registry: FakeRegistry) -> None:
    result = await run(registry, "app:2", "--json")

    record = json.loads(result.stdout)
    error = assert_fails(result, Exit.NOT_FOUND, "app:2")
    assert record == {
        "schema_version": 1,
        "exit_code": 3,
        "image": "docker.io/library/app:2",
        "error": str(error),
        "hint": error.hint,
    }


async def test_an_archive_goes_to_stdout_alone(registry: FakeRegistry) -> None:
    result = await run(registry, "app:1", "-o", "docker-archive:-")

    assert result.exit_code == 0, result.output
    with tarfile.open(fileobj=io.BytesIO(result.stdout_bytes)) as archive:
        names = archive.getnames()
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        (entry,) = json.loads(manifest.read())
    assert names == [entry["Config"], *entry["Layers"], "manifest.json"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-o", "oci:-"], "an OCI layout is a directory"),
        (["-o", "docker-archive:-", "--json"], "not both"),
    ],
)
async def test_what_stdout_cannot_take_is_refused(
    registry: FakeRegistry, words: list[str], text: str
) -> None:
    result = await run(registry, "app:1", *words)

    assert_fails(result, Exit.USAGE, text)
    assert registry.asked == []


async def test_a_terminal_gets_no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    with pytest.raises(Exception, match="nothing for a terminal"):
        parse_output("docker-archive:-").check()


async def test_lines_name_the_tag(registry: FakeRegistry) -> None:
    registry.add_image("library/app", "latest", [LAYER])

    named = await run(registry, "app:1", "--progress", "plain")
    plain = await run(registry, "app", "--progress", "plain")

    first, *_, last = named.stderr.splitlines()
    assert first.startswith("pulling docker.io/library/app:1: 2 blobs")
    assert last.startswith("pulled docker.io/library/app:1: ")
    assert plain.stderr.startswith("pulling docker.io/library/app:latest: ")


# --- where from, and for what ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("127.0.0.1:5300", "did you mean http://127.0.0.1:5300?"),
        ("localhost:5300", "did you mean http://localhost:5300?"),
        ("tcp://127.0.0.1:5300", "such as http://HOST:PORT"),
        ("http://", "such as http://HOST:PORT"),
        ("http://[::1", "such as http://HOST:PORT"),
    ],
)
@pytest.mark.parametrize("command", [pull, prewarm, replicas], ids=lambda command: command.name)
def test_an_endpoint_that_is_no_url_is_wrong_usage(
    command: click.Command, endpoint: str, text: str
) -> None:
    result = CliRunner().invoke(command, ["app:1", "--endpoint", endpoint])

    assert result.exit_code == Exit.USAGE
    assert "--endpoint" in result.stderr
    assert text in result.stderr


@pytest.mark.parametrize(
    ("asked", "built_for"),
    [("linux/arm64", "amd64"), ("windows/amd64", "amd64"), ("linux/amd64", "s390x")],
)
async def test_an_image_of_another_platform_is_refused_before_its_layers(
    registry: FakeRegistry, asked: str, built_for: str
) -> None:
    image = registry.add_image("library/one", "1", [LAYER], architecture=built_for)

    result = await run(registry, "one:1", "--platform", asked)

    error = assert_fails(result, Exit.NOT_FOUND, f"one:1 has no image for {asked}")
    assert error.hint == f"it has linux/{built_for}; choose one with --platform"
    assert not [a for a in registry.asked if image.layer_digests[0] in a.path]


async def test_the_only_image_there_is_will_do_where_no_platform_is_asked_for(
    registry: FakeRegistry,
) -> None:
    registry.add_image("library/one", "1", [LAYER], architecture="s390x")

    assert (await run(registry, "one:1")).exit_code == 0


# --- layouts --------------------------------------------------------------------------------------


async def test_a_manifest_of_dockers_type_keeps_its_bytes_and_is_found_by_name(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    image = registry.add_image("library/old", "1", [LAYER], docker=True)
    place = tmp_path / "old"

    for _ in range(2):  # again, over what is there
        assert (await run(registry, "old:1", "-o", f"oci:{place}")).exit_code == 0

    (entry,) = json.loads((place / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {REF_NAME: "1"}
    assert entry["mediaType"] == OCI_INDEX
    (child,) = json.loads(blob(place, entry["digest"]))["manifests"]
    assert child == {
        "mediaType": DOCKER_MANIFEST,
        "digest": image.manifest_digest,
        "size": len(image.manifest_body),
    }
    assert blob(place, child["digest"]) == image.manifest_body


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / Path(*digest.split(":"))).read_bytes()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.parametrize("docker", [False, True], ids=["OCI", "Docker"])
@pytest.mark.parametrize("architecture", ["amd64", "s390x"])
async def test_skopeo_finds_an_image_of_a_layout_by_its_tag(
    registry: FakeRegistry, tmp_path: Path, docker: bool, architecture: str
) -> None:
    registry.add_image("library/x", "1", [LAYER], docker=docker, architecture=architecture)
    registry.add_image("library/app", "2", [LAYER])
    for tag in ("x:1", "app:2"):  # of one image alone the name does not matter
        await run(registry, tag, "-o", f"oci:{tmp_path}/both")
    place = f"oci:{tmp_path}/both:1"

    shown = await asyncio.to_thread(
        subprocess.run, ["skopeo", "inspect", place], capture_output=True, check=False
    )
    copied = await asyncio.to_thread(
        subprocess.run,
        ["skopeo", "--insecure-policy", "copy", place, f"docker-archive:{tmp_path}/x.tar:x:1"],
        capture_output=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["Architecture"] == architecture
    assert copied.returncode == 0, copied.stderr


# --- full disks and signals -----------------------------------------------------------------------


async def test_a_full_disk_is_named_with_its_place(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(download: client._Download, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(client._Download, "append", full)

    result = await run(registry, "app:1", "-o", f"oci:{tmp_path}/app")

    assert result.exception is not None
    code, message, hint = explain(cause_of(result.exception))
    assert (code, message) == (Exit.TEMPORARY, f"{tmp_path}: no space left on device")
    assert "make room" in hint
    assert os.listdir(tmp_path) == []


# What runs in the background of a shell inherits that SIGINT is ignored.
UNDER_A_TERMINAL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from p2pdist.cli.main import main; main()"
)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
async def test_a_signal_leaves_nothing_beside_the_target(
    registry: FakeRegistry, tmp_path: Path, number: signal.Signals
) -> None:
    image = registry.add_image("library/slow", "1", [layer("slow", 900_000, packed=False)])
    registry.faults[image.layer_digests[0]] = Fault(stall_after=100_000)
    words = ["pull", "slow:1", "-o", f"oci:{tmp_path}/app", "--endpoint", registry.url]
    with recorded(88, "a pull that is killed", number.name) as record:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", UNDER_A_TERMINAL, *words, stderr=asyncio.subprocess.PIPE
        )
        try:
            await until(lambda: any(image.layer_digests[0] in a.path for a in registry.asked))
            assert [name.startswith(PREFIX) for name in os.listdir(tmp_path)] == [True]

            process.send_signal(number)
            _, said = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()

        assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], said
        assert b"Traceback" not in said
        assert os.listdir(tmp_path) == []
        record.outcome = f"exit {process.returncode}, nothing is left beside the target"
