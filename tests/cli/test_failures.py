"""Ordinary mistakes: a sentence, a hint and a documented exit code, and never a traceback."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError, explain
from p2pdist.cli.main import _fail, cli, main
from p2pdist.errors import CannotListen, ConfigError, UpstreamError
from p2pdist.process.keys import make_keys
from p2pdist.settings_load import load_settings
from tests.cli.test_main import p2pdist
from tests.faults.records import recorded

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
ROW = re.compile(r"^\| (\d+) \| (.+) \|$", re.MULTILINE)


@pytest.fixture
def peer(tmp_path: Path) -> list[str]:
    """The command of a peer that lacks nothing but ports of its own."""
    keys = make_keys(tmp_path / "keys")
    flags = {
        "--cluster-secret-file": keys.secret_file,
        "--host-state-dir": tmp_path / "state",
        "--peer-listen": "127.0.0.1:0",
        "--peer-exchange-listen": "127.0.0.1:0",
        "--peer-admin-listen": "127.0.0.1:0",
    }
    return ["peer", *(str(word) for pair in flags.items() for word in pair)]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on loopback where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def fails(arguments: list[str], code: Exit, sentence: str, hint: str) -> None:
    done = p2pdist(*arguments)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "this is a bug" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("p2pdist: ")]
    assert len(said) == 1, done.stderr
    assert sentence in said[0]
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert len(hints) == 1, done.stderr
    assert hint in hints[0]


LISTENERS = ("listen", "exchange_listen", "admin_listen")


@pytest.mark.parametrize("key", LISTENERS)
def test_a_foreign_address_is_named_with_its_setting(peer: list[str], key: str) -> None:
    """192.0.2.0/24 is for documentation (RFC 5737): no host has an address of it."""
    flag = f"--peer-{key.replace('_', '-')}"

    fails(
        [*peer, flag, "192.0.2.1:5310"],
        Exit.USAGE,
        f"peer.{key} = 192.0.2.1:5310: no address of this host",
        "ip -brief address",
    )


@pytest.mark.faults
@pytest.mark.parametrize("key", LISTENERS)
def test_a_port_in_use_is_named_with_its_setting(peer: list[str], taken: int, key: str) -> None:
    flag = f"--peer-{key.replace('_', '-')}"

    with recorded(87, "a daemon whose port is taken", f"peer.{key}") as record:
        fails(
            [*peer, flag, f"127.0.0.1:{taken}"],
            Exit.USAGE,
            f"peer.{key} = 127.0.0.1:{taken}: something else listens there",
            flag,
        )
        record.outcome = "exit 2, with the setting and how to see who has it; no traceback"


def test_an_all_in_one_tells_which_of_its_daemons_has_no_port(tmp_path: Path, taken: int) -> None:
    """Of the others none is left behind: it would have kept the command from ending."""
    flags = ["--host-state-dir", str(tmp_path)]
    for name in ("tracker-listen", "tracker-admin-listen", "proxy-listen", "proxy-exchange-listen"):
        flags += [f"--{name}", "127.0.0.1:0"]
    flags += ["--proxy-admin-listen", f"127.0.0.1:{taken}"]

    sentence = f"proxy.admin_listen = 127.0.0.1:{taken}: something else listens there"
    fails(["all-in-one", *flags], Exit.USAGE, sentence, "--proxy-admin-listen")


@pytest.mark.parametrize(
    ("content", "sentence", "hint"),
    [
        (None, "no such file", "--config"),
        (b"[peer\n", "is no TOML: Expected ']'", "texts stand in quotes"),
        (b"\xff", "is no text in UTF-8", "--config"),
        (b"x = " + b"[" * 10_000, "is no TOML", "texts stand in quotes"),
        (b"[peer]\nlisten = 1\n", "peer.listen = 1: expected a text", "config init"),
        (b'[log]\nlevel = "loud"\n', "expected one of 'debug', 'info'", "config init"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, sentence: str, hint: str
) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)

    fails(["config", "show", "--config", str(path)], Exit.USAGE, sentence, hint)


def test_a_directory_in_the_place_of_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PDIST_CONFIG", str(tmp_path))

    fails(["config", "show"], Exit.USAGE, f"{tmp_path}: is a directory", "--config")


@pytest.mark.parametrize("host", ["https://ghcr.io", "docker.io/library"])
def test_a_registry_that_is_no_host_is_refused_with_its_form(tmp_path: Path, host: str) -> None:
    path = tmp_path / "config.toml"
    secret = make_keys(tmp_path / "keys").secret_file
    path.write_text(f'cluster.secret_file = "{secret}"\n[[upstream]]\nhost = "{host}"\n')

    sentence = f"upstream 1: host = '{host}': a registry's name has no"
    fails(["config", "verify", "--config", str(path)], Exit.USAGE, sentence, "config init")


def test_a_variable_that_nobody_knows_is_near_no_other_by_its_prefix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("P2PDIST_FOO", "1")

    with pytest.raises(ConfigError) as caught:
        load_settings()

    assert str(caught.value) == "environment: unknown setting P2PDIST_FOO"


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "init", "--dir", "{}/keys"],
        ["all-in-one", "--host-state-dir", "{}/state"],
        ["runtime", "install", "--engine", "docker", "--root", "{}"],
        ["runtime", "install", "--engine", "containerd", "--root", "{}"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_place_that_takes_no_files_is_named(tmp_path: Path, arguments: list[str]) -> None:
    """A plain file in its way, since root is refused nothing."""
    place = tmp_path / "file"
    place.write_bytes(b"")

    done = p2pdist(*[word.format(place) for word in arguments])
    assert done.returncode == Exit.USAGE, done.stderr
    assert str(place) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_right_that_is_lacking_is_named_with_its_place_and_user() -> None:
    code, message, hint = explain(PermissionError(errno.EACCES, "Permission denied", "/etc/x"))

    assert (code, message) == (Exit.USAGE, "/etc/x: permission denied")
    assert "run it as root" in hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root is refused nothing")
def test_an_ordinary_user_is_told_where_root_is_needed(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    fails(["keys", "init", "--dir", f"{tmp_path}/keys"], Exit.USAGE, "permission denied", "root")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, Exit.USAGE),
        (errno.EROFS, Exit.USAGE),
        (errno.ENOENT, Exit.USAGE),
        (errno.EISDIR, Exit.USAGE),
        (errno.ENOSPC, Exit.TEMPORARY),
        (errno.EDQUOT, Exit.TEMPORARY),
        (errno.EMFILE, Exit.TEMPORARY),
        (errno.ECONNREFUSED, Exit.UPSTREAM),
        (errno.ETIMEDOUT, Exit.TIMEOUT),
        (errno.EIO, Exit.UNEXPECTED),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if type(value) is int else "",
)
@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("", [error])])
def test_what_the_system_refuses_is_no_bug(
    number: int,
    code: Exit,
    wrap: Callable[[Exception], Exception],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _fail(wrap(OSError(number, os.strerror(number), "/srv/x")), debug=False) == code

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("p2pdist: ")
    assert number == errno.ETIMEDOUT or "/srv/x: " in lines[0]
    assert all(line.startswith(("p2pdist: ", "hint: ")) for line in lines)


def test_a_bug_says_that_it_is_one_and_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("shard")
    except KeyError as error:
        code = _fail(error, debug=False)

    said = capsys.readouterr().err
    assert code == Exit.UNEXPECTED
    assert "test_failures.py" in said
    assert said.splitlines()[-2:] == [
        "p2pdist: this is a bug in p2pdist: KeyError: 'shard'",
        "hint: report it with the lines above, the command and `p2pdist version`",
    ]


def test_debug_shows_where_an_ordinary_error_came_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _fail(CommandError("no", Exit.USAGE), debug=True)

    assert "CommandError: no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        (OSError(errno.EACCES, "Permission denied"), "ports below 1024 are for root"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "has no address here"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "No buffer space available"),
    ],
)
def test_why_an_address_cannot_be_listened_on(why: OSError, sentence: str) -> None:
    code, message, hint = explain(CannotListen("h.test", 80, why))

    assert code is Exit.USAGE
    assert "h.test:80" in message
    assert sentence in message
    assert hint


def test_only_a_setting_that_was_read_is_looked_up_by_its_origin() -> None:
    assert "--origin" in explain(ConfigError("peer.listen: must not be public"))[2]
    assert explain(ConfigError("/etc/docker/daemon.json is broken"))[2] == ""
    assert explain(ConfigError("peer.x is wrong", hint="mend it"))[2] == "mend it"


def test_all_exit_codes_are_documented() -> None:
    section = DOCS.read_text().partition("## Exit codes\n")[2].partition("\n## ")[0]

    assert [int(code) for code, _ in ROW.findall(section)] == [int(code) for code in Exit]


ENDS: dict[Exit, list[BaseException | Exit]] = {
    Exit.DONE: [Exit.DONE],
    Exit.UNEXPECTED: [RuntimeError("x"), OSError(errno.EIO, "I/O error"), Exit.UNEXPECTED],
    Exit.USAGE: [click.UsageError("x"), ConfigError("x"), OSError(errno.EISDIR, "x")],
    Exit.NOT_FOUND: [UpstreamError("x", status=404)],
    Exit.DENIED: [UpstreamError("x", status=403), UpstreamError("x", status=401)],
    Exit.UPSTREAM: [UpstreamError("x", status=503), ConnectionRefusedError(111, "x")],
    Exit.INTEGRITY: [CommandError("x", Exit.INTEGRITY)],
    Exit.PARTIAL: [Exit.PARTIAL],
    Exit.TIMEOUT: [TimeoutError()],
    Exit.TEMPORARY: [OSError(errno.ENOSPC, "x"), OSError(errno.EMFILE, "x")],
    Exit.INTERRUPTED: [KeyboardInterrupt(), click.Abort()],
    Exit.TERMINATED: [Exit.TERMINATED],
}


@pytest.mark.parametrize("code", Exit, ids=lambda code: code.name)
def test_every_code_ends_a_command(code: Exit, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ENDS[code]:

        def run(end: BaseException | Exit = end, **_: object) -> Exit:
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setattr(cli, "main", run)

        with pytest.raises(SystemExit) as caught:
            main()

        assert caught.value.code == code, end
