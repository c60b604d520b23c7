"""The configuration that the values become is one that the daemons take."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pdist.cli.verify import problems
from p2pdist.model.identity import IdentityRole
from p2pdist.process.ca import issue_files, make_ca, read_ca
from p2pdist.process.clock import unix_s
from p2pdist.process.keys import make_keys
from tests.helm.chart import (
    CHART,
    EVERYTHING,
    PRIVATE,
    ROLES,
    HelmError,
    Rendered,
    Values,
    module_of,
    render,
    settings_in,
)


def place(rendered: Rendered, role: str, work: Path) -> Path:
    """Write a role's configuration and the secrets that it names below `work`."""
    made = {m["metadata"]["name"]: m["data"] for m in rendered.manifests if m["kind"] == "Secret"}
    for folder in ("cluster", "proxy"):
        if not made:  # whoever names Secrets has made them so
            make_keys(work / folder)
        (work / folder).mkdir(exist_ok=True)
        for key, data in made.get(f"p2pdist-{folder}", {}).items():
            (work / folder / key).write_bytes(base64.b64decode(data))
            (work / folder / key).chmod(0o600)
    file = work / f"{role}.toml"
    file.write_text(
        rendered.config(role)
        .replace("/run/p2pdist", str(work))
        .replace("/var/lib/p2pdist/identity", str(work / "identity"))
    )
    if "identity_dir" in rendered.config(role):  # the init container has been there
        make_ca(work / "ca", unix_s())
        kind = IdentityRole(role)
        issue_files(read_ca(work / "ca"), work / "identity", kind, None, days=1, now_s=unix_s())
    return file


@pytest.mark.parametrize("role", ROLES)
def test_config_verify_takes_what_the_chart_makes(role: str, tmp_path: Path) -> None:
    file = place(render(work=tmp_path), role, tmp_path)
    argv = [sys.executable, "-m", "p2pdist.cli.main", "config", "verify", "--config", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True)

    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)


@pytest.mark.parametrize("role", ROLES)
def test_every_case_is_a_configuration(
    values: Values, rendered: Rendered, role: str, tmp_path: Path
) -> None:
    file = place(rendered, role, tmp_path)
    folder = tmp_path / "registries"
    for place_in_list in ("0", "2"):
        (folder / place_in_list).mkdir(parents=True, exist_ok=True)
    account = {"auths": {"ghcr.io": {"auth": base64.b64encode(b"robot:secret").decode()}}}
    certificate = _certificate(tmp_path)
    for name, text in {
        "0/password": "secret",
        "0/ca.pem": certificate[0],
        "2/auth.json": json.dumps(account),
        "2/tls.crt": certificate[0],
        "2/tls.key": certificate[1],
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    settings = settings_in(file)
    errors, _ = problems(settings)

    assert errors == []
    hosts = [upstream.host for upstream in settings.upstream]
    wanted = [registry["host"] for registry in values.get("registries", [{"host": "docker.io"}])]
    if role == "proxy":
        assert hosts == wanted
    if role == "peer":
        assert not any(upstream.has_account for upstream in settings.upstream)


def _certificate(work: Path) -> tuple[str, str]:
    argv = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x"]
    argv += ["-keyout", str(work / "k.pem"), "-out", str(work / "c.pem")]
    subprocess.run(argv, check=True, capture_output=True)
    return (work / "c.pem").read_text(), (work / "k.pem").read_text()


def test_numbers_and_lists_arrive_as_they_were_given(tmp_path: Path) -> None:
    rendered = render(EVERYTHING, work=tmp_path)
    settings = {}
    for role in ROLES:
        file = tmp_path / f"{role}.toml"
        file.write_text(rendered.config(role))
        settings[role] = settings_in(file)

    assert settings["peer"].store.max_bytes == 50_000_000_000
    assert settings["peer"].store.high_watermark == 0.8
    assert settings["peer"].peer.upload_rate == 200_000_000
    assert settings["peer"].peer.direct is False
    assert settings["peer"].host.labels == ("role=web",)
    assert len(settings["peer"].peer.proxies) == 3
    assert settings["proxy"].proxy.parents == ("http://10.0.0.1:5100",)
    assert settings["proxy"].replicate[0].poll == 300
    assert settings["proxy"].proxy.job_trackers == ("http://p2pdist-tracker.images.svc:5209",)
    assert settings["tracker"].tracker.federation == ("tcp://10.1.0.2:5200",)
    assert {s.host.dc for s in settings.values()} == {"fra1"}


def test_a_text_stays_one_text_whatever_is_in_it(tmp_path: Path) -> None:
    odd = 'r"1\\ \n[proxy]\nkey_file = "<ü>"'
    rendered = render({"peer": {"settings": {"host": {"rack": odd}}}}, work=tmp_path)
    file = tmp_path / "peer.toml"
    file.write_text(rendered.config("peer"))

    loaded = settings_in(file)
    assert loaded.host.rack == odd
    assert loaded.proxy.key_file is None


def test_the_public_key_belongs_to_the_private_one(tmp_path: Path) -> None:
    from p2pdist.process.identity import proxy_keys, read_signer

    settings = settings_in(place(render(work=tmp_path), "proxy", tmp_path))

    assert proxy_keys(settings) == [read_signer(settings.proxy.key_file).public_key_bytes]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"certificates": {"enable": True}}, "enable"),
        ({"tracker": {"settings": {"tracker": {"ca_dir": "/x"}}}}, "ca_dir"),
        ({"peer": {"settings": {"peer": {"identity_dir": "/x"}}}}, "identity_dir"),
        ({"peer": {"settings": {"store": {"max_byte": "1GB"}}}}, "max_byte"),
        ({"peer": {"settings": {"peer": {"listen": "0.0.0.0:5300"}}}}, "listen"),
        ({"peer": {"stateDir": "/"}}, "stateDir"),
        ({"peer": {"stateDir": "/var/../etc"}}, "stateDir"),
        ({"peer": {"ports": {"mirror": "5300"}}}, "mirror"),
        ({"proxy": {"replicas": 0}}, "replicas"),
        ({"registries": []}, "registries"),
        ({"registries": [{"url": "https://a"}]}, "host"),
        ({"registries": [{"host": "a", "password_file": "/x"}]}, "password_file"),
        (
            {"registries": [{"host": "a", "passwordSecret": {"name": "b", "key": "c"}}]},
            "username",
        ),
        ({"networkPolicy": {"nodeCIDRs": ["everybody"]}}, "nodeCIDRs"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"undo": {"timeoutSeconds": 0}}, "timeoutSeconds"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(
    values: Values, named: str, tmp_path: Path
) -> None:
    with pytest.raises(HelmError, match=named):
        render(values, work=tmp_path)


def test_private_registries_without_access_are_allowed_and_say_so(tmp_path: Path) -> None:
    first: dict[str, Any] = dict(PRIVATE["registries"][0])
    del first["access"]

    assert "access" not in render({"registries": [first]}, work=tmp_path).config("proxy")


def test_the_schema_is_the_one_that_the_settings_make() -> None:
    module = module_of(CHART.parent / "values_schema.py")

    assert json.loads((CHART / "values.schema.json").read_text()) == module.schema()
