"""The command as users run it: exit codes, help, hints."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomlkit

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError, explain
from p2pdist.cli.main import VERBS, _fail, cli
from p2pdist.errors import ConfigError, ErrorReason, RegistryError, UpstreamError


def p2pdist(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "p2pdist.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=30,
    )


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    done = p2pdist(verb, "--help")

    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_help_does_not_load_the_http_stack() -> None:
    script = "import sys; from p2pdist.cli.main import cli; print('aiohttp' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"
    assert cli.name == "cli"


def test_an_unknown_verb_is_a_usage_error() -> None:
    assert p2pdist("prewarmm").returncode == Exit.USAGE


def test_a_daemon_without_a_secret_names_the_setting_and_the_fix(tmp_path: Path) -> None:
    done = p2pdist("peer", "--host-state-dir", str(tmp_path))

    assert done.returncode == Exit.USAGE
    assert "cluster.secret_file is not set" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[peer]\nproxys = []\n")

    done = p2pdist("config", "show", "--config", str(path))

    assert done.returncode == Exit.USAGE
    assert "unknown setting peer.proxys; did you mean peer.proxies?" in done.stderr


def test_keys_are_made_once_and_printed_as_configuration(tmp_path: Path) -> None:
    first = p2pdist("keys", "init", "--dir", str(tmp_path))
    again = p2pdist("keys", "init", "--dir", str(tmp_path))

    assert first.returncode == 0
    assert f'secret_file = "{tmp_path}/cluster.secret"' in first.stdout
    assert (tmp_path / "cluster.secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "proxy.pub").read_text().strip() in first.stdout
    assert again.returncode == Exit.USAGE
    assert "is not replaced" in again.stderr


def test_status_without_a_daemon_says_so() -> None:
    done = p2pdist("status", "--admin", "http://127.0.0.1:1")

    assert done.returncode == Exit.UPSTREAM
    assert "no daemon answers" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.USAGE),
        (RegistryError(404, "NAME_UNKNOWN", "x"), Exit.NOT_FOUND),
        (RegistryError(403, "DENIED", "x"), Exit.DENIED),
        (UpstreamError("x", status=404), Exit.NOT_FOUND),
        (UpstreamError("x", status=401), Exit.DENIED),
        (UpstreamError("x", status=403), Exit.DENIED),
        (UpstreamError("x", reason=ErrorReason.NO_PROXY), Exit.UPSTREAM),
        (RegistryError(404, "NAME_UNKNOWN", "x", reason=ErrorReason.NOT_LISTED), Exit.DENIED),
        (RegistryError(404, "BLOB_UNKNOWN", "x", reason=ErrorReason.REGISTRY_TLS), Exit.UPSTREAM),
        (UpstreamError("x", status=503), Exit.UPSTREAM),
        (TimeoutError(), Exit.TIMEOUT),
        (CommandError("x", Exit.INTEGRITY), Exit.INTEGRITY),
        (OSError(5, "I/O error"), Exit.UNEXPECTED),
        (RuntimeError("x"), Exit.UNEXPECTED),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: Exit) -> None:
    assert explain(error)[0] is code


def test_an_error_that_quotes_a_server_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = _fail(CommandError("it said \x1b[2J\x9b1m\nmore", Exit.UPSTREAM), debug=False)

    assert code == Exit.UPSTREAM
    assert capsys.readouterr().err == "p2pdist: it said  [2J 1m\nmore\n"


ODD = 'a "b" \\ \x1b[2J\x7f 🚀\n'


def test_what_config_show_prints_is_the_file(tmp_path: Path) -> None:
    """JSON's way to quote is not TOML's: DEL, and pairs for what lies beyond 16 bits."""
    path = tmp_path / "config.toml"
    path.write_text(tomlkit.dumps({"host": {"state_dir": f"/srv/{ODD}"}}))

    done = p2pdist("config", "show", "--origin", "--config", str(path))

    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["host"]["state_dir"] == f"/srv/{ODD}"
    assert "\x1b" not in done.stdout


def test_what_keys_init_prints_is_configuration(tmp_path: Path) -> None:
    directory = tmp_path / ODD

    done = p2pdist("keys", "init", "--dir", str(directory))

    printed = tomllib.loads(done.stdout)
    assert printed["cluster"]["secret_file"] == str(directory / "cluster.secret")
    assert printed["proxy"] == {"key_file": str(directory / "proxy.key")}
    assert "\x1b" not in done.stdout + done.stderr


def test_a_list_flag_that_is_repeated_adds_up() -> None:
    flags = ["--peer-trackers", "tcp://a:1", "--peer-trackers", "tcp://b:2,tcp://c:3"]

    done = p2pdist("config", "show", *flags, "--log-level", "DEBUG")

    shown = tomllib.loads(done.stdout)
    assert shown["peer"]["trackers"] == ["tcp://a:1", "tcp://b:2", "tcp://c:3"]
    assert shown["proxy"]["trackers"] == []
    assert shown["log"]["level"] == "debug"
