from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from p2pdist.cli.doctor import doctor
from p2pdist.cli.exit_codes import Exit
from p2pdist.demo.processes import free_ports
from p2pdist.process.keys import make_keys


def run(tmp_path: Path, *arguments: str, config: str = "") -> Result:
    keys = make_keys(tmp_path / "keys")
    ports = free_ports(3)
    path = tmp_path / "config.toml"
    path.write_text(
        f'[cluster]\nsecret_file = "{keys.secret_file}"\nproxy_keys = ["{keys.public_key}"]\n'
        f'[host]\nstate_dir = "{tmp_path}"\n[store]\nmax_bytes = 1000\n'
        f'[tracker]\nlisten = "127.0.0.1:{ports[0]}"\nadmin_listen = "127.0.0.1:{ports[1]}"\n'
        + config
    )
    result = CliRunner().invoke(doctor, ["--config", str(path), *arguments], standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def test_a_good_host_has_no_fail(tmp_path: Path) -> None:
    result = run(tmp_path, "--role", "tracker")

    assert result.return_value == Exit.DONE
    assert "FAIL" not in result.output
    assert "PASS  cluster secret" in result.output


def test_each_fail_has_its_fix_and_the_exit_code_says_whose_fault(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    nobody = f'[[upstream]]\nhost = "r.test"\nurl = "http://127.0.0.1:{port}"\n'

    result = run(tmp_path, "--role", "proxy", "-o", "json", config=nobody)

    found = json.loads(result.output)["findings"]
    failing = [finding for finding in found if finding["level"] == "FAIL"]
    assert result.return_value == Exit.USAGE
    assert {finding["check"] for finding in failing} == {"signing key", "registry"}
    assert all(finding["fix"] for finding in failing)


def test_only_other_hosts_away_is_another_exit_code(tmp_path: Path) -> None:
    keys_and_tracker = f'federation = ["tcp://127.0.0.1:{free_ports(1)[0]}"]\n'

    result = run(tmp_path, "--role", "tracker", config=keys_and_tracker)

    assert result.return_value == Exit.UPSTREAM


def test_quick_says_whether_the_daemon_serves(tmp_path: Path) -> None:
    result = run(tmp_path, "--role", "tracker", "--quick")

    assert result.return_value == Exit.UPSTREAM
    assert len(result.output.splitlines()) == 2
