"""`p2pdist ca`: what it writes is what daemons start with."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.ca import ca, certificate_lines
from p2pdist.errors import ConfigError
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process import clock
from p2pdist.process.ca import issue_files, make_ca, read_ca
from p2pdist.process.certificates import DAY_S, Certificate
from p2pdist.process.host_identity import read_identity
from p2pdist.process.join_tokens import read_token
from tests.screens.golden import is_screen

ID = "0123456789abcdef" * 2


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(ca, arguments, catch_exceptions=False)


@pytest.fixture
def kept(tmp_path: Path) -> str:
    ran("init", "--dir", str(tmp_path / "ca"))
    return str(tmp_path / "ca")


@pytest.mark.parametrize("role", ["peer", "proxy", "tracker"])
def test_what_is_issued_is_what_a_daemon_starts_with(tmp_path: Path, kept: str, role: str) -> None:
    out = tmp_path / "out"

    done = ran("issue", "--dir", kept, "--role", role, "--host-id", ID, "--out", str(out))

    assert f"for    {role} {ID}" in done.output
    own = read_identity(out, Role(role))
    assert own.identity == Identity(IdentityRole(role), HostId(ID))
    assert 29 * DAY_S < own.says.ends_s - clock.unix_s() <= 30 * DAY_S


def test_the_same_command_again_is_for_the_same_host(tmp_path: Path, kept: str) -> None:
    command = ("issue", "--dir", kept, "--role", "peer", "--out", str(tmp_path / "out"))
    first = read_who(ran(*command, "--days", "10"))

    assert read_who(ran(*command)) == first


def test_if_needed_leaves_what_is_good(tmp_path: Path, kept: str) -> None:
    """A certificate that a daemon renews itself is not issued anew at each of its starts."""
    out = tmp_path / "out"
    command = ("issue", "--dir", kept, "--role", "tracker", "--out", str(out), "--if-needed")
    host = read_identity_of(ran(*command))
    first = (out / "cert.pem").read_bytes()

    again = ran(*command)
    assert again.output == f"nothing to do: {out} is for tracker {host}\n"
    assert (out / "cert.pem").read_bytes() == first
    with pytest.raises(ConfigError, match="not for a proxy"):
        ran(*(word.replace("tracker", "proxy") for word in command))

    ran("init", "--dir", str(tmp_path / "next"))
    of_next = ("issue", "--dir", str(tmp_path / "next"), *command[3:])
    both = (out / "ca.pem").read_bytes() + (tmp_path / "next" / "ca.pem").read_bytes()
    (out / "ca.pem").write_bytes(both)
    assert "nothing to do" in ran(*of_next).output, "while one CA takes over from the other"
    assert (out / "ca.pem").read_bytes() == both
    (out / "ca.pem").write_bytes(both[: both.index(b"-----END") + 26])
    assert read_identity_of(ran(*of_next)) == host
    (out / "cert.pem").write_bytes(both)
    with pytest.raises(ConfigError, match=r"cert\.pem is no host's"):
        ran(*of_next)


def test_if_needed_issues_what_has_ended_for_the_same_host(tmp_path: Path) -> None:
    out, kept, now_s = tmp_path / "out", tmp_path / "old", clock.unix_s()
    make_ca(kept, now_s - 3 * DAY_S)
    made = issue_files(
        read_ca(kept), out, IdentityRole.TRACKER, None, days=1, now_s=now_s - 2 * DAY_S
    )

    ran("issue", "--dir", str(kept), "--role", "tracker", "--out", str(out), "--if-needed")

    found = read_identity(out, Role.TRACKER)
    assert found.identity == made.identity
    assert found.says.ends_s > now_s + 29 * DAY_S


def read_identity_of(done: Result) -> str:
    return read_who(done).split()[-1]


def read_who(done: Result) -> str:
    (who,) = [line for line in done.output.splitlines() if line.startswith("for ")]
    return who


@pytest.mark.parametrize("host_id", ["", "A" * 32, "../../etc", "a" * 33])
def test_a_host_id_is_one(tmp_path: Path, kept: str, host_id: str) -> None:
    with pytest.raises(ConfigError, match="32 lower-case hex"):
        ran("issue", "--dir", kept, "--role", "peer", "--host-id", host_id, "--out", str(tmp_path))


def test_a_host_is_revoked_for_good(tmp_path: Path, kept: str) -> None:
    out = str(tmp_path / "out")
    issue = ("issue", "--dir", kept, "--role", "peer", "--out", out)
    host = read_who(ran(*issue)).split()[-1]

    assert f"{host}  revoked\n" in ran("revoke", "--dir", kept, host).output
    done = ran("revoke", "--dir", kept, host, ID)

    assert f"{host}  was revoked before\n{ID}  revoked\n" in done.output
    listed = ran("revoked", "--dir", kept).output
    assert {line.split()[0] for line in listed.splitlines()[:2]} == {host, ID}
    for command in (
        issue,
        (*issue[:-1], str(tmp_path / "new"), "--host-id", ID),
        ("token", "--dir", kept, "--role", "peer", "--tracker", "one:5201", "--host-id", ID),
    ):
        with pytest.raises(ConfigError, match=r"was revoked, .* for good"):
            ran(*command)
    assert ran(*issue[:-1], str(tmp_path / "empty")).exit_code == 0


def test_what_is_no_host_id_is_not_revoked(kept: str) -> None:
    with pytest.raises(ConfigError, match="a host id has 32 lower-case hex"):
        ran("revoke", "--dir", kept, ID, "host-17")
    assert "0 revoked" in ran("revoked", "--dir", kept).output


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("none")

    with pytest.raises(ConfigError, match=r"cert\.pem: "):
        ran("show", str(tmp_path / "cert.pem"))
    with pytest.raises(ConfigError, match=r"other\.pem: No such file"):
        ran("show", str(tmp_path / "other.pem"))


def test_what_is_shown() -> None:
    now_s = 1_800_000_000.0
    identity = Identity(IdentityRole.PEER, HostId(ID))
    issuer = "CN=p2pdist CA 01234567"
    host = Certificate(identity, now_s - 300, now_s + 30 * DAY_S, issuer, f"CN=peer {ID}")
    authority = Certificate(None, now_s - 300, now_s + 3650 * DAY_S, issuer, issuer)

    is_screen(
        "ca-show",
        [
            *certificate_lines(host, now_s),
            "",
            *certificate_lines(host, now_s + 33 * DAY_S),
            "",
            *certificate_lines(authority, now_s),
        ],
    )


def test_a_token_names_who_takes_it_and_for_whom(kept: str) -> None:
    command = ("token", "--dir", kept, "--role", "peer", "--tracker", "tracker-1:5201")
    done = ran(*command, "--host-id", ID, "--ttl", "10m")
    token = read_token(done.stdout.strip())
    assert f"`p2pdist ca revoke {token.id.hex()}` ends it" in done.stderr
    assert (token.tracker, token.role, token.host_id) == ("tracker-1:5201", "peer", ID)
    assert 590 < token.ends_s - clock.unix_s() <= 600
    assert read_token(ran(*command).stdout.strip()).id != token.id


def test_a_token_for_a_fleet_is_for_peers_and_can_be_taken_back(kept: str) -> None:
    command = ("token", "--dir", kept, "--tracker", "tracker-1:5201", "--uses", "500", "--role")
    done = ran(*command, "peer")
    token = read_token(done.stdout.strip())
    assert token.uses == 500
    assert done.stderr.startswith("good for 500 hosts, until ")
    for role in ("proxy", "tracker"):
        with pytest.raises(ConfigError, match=f"--uses: .* not for a {role}"):
            ran(*command, role)
    with pytest.raises(ConfigError, match="no certain host id"):
        ran(*command, "peer", "--host-id", ID)
    assert ran(*command[:-2], "30001", "--role", "peer").exit_code == 2

    revoked = ran("revoke", "--dir", kept, done.stdout.strip())
    assert revoked.stdout == f"{token.id.hex()}  revoked\n"
    assert "was revoked before" in ran("revoke", "--dir", kept, token.id.hex()).stdout
    with pytest.raises(ConfigError, match="is damaged"):
        ran("revoke", "--dir", kept, done.stdout[:30])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--tracker", "tracker-1"), "is no HOST:PORT"),
        (("--ttl", "31d"), "at most 30d"),
        (("--ttl", "soon"), "--ttl: "),
        (("--host-id", "A"), "32 lower-case hex"),
    ],
)
def test_a_token_with_a_mistake_is_not_made(kept: str, wrong: tuple[str, str], says: str) -> None:
    command = ("token", "--dir", kept, "--role", "peer", "--tracker", "tracker-1:5201")
    with pytest.raises(ConfigError, match=says):
        ran(*command, *wrong)
