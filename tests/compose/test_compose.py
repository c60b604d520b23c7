"""docker-compose.yml and the image as their users have them: real dockerd, real docker-compose."""

from __future__ import annotations

import hashlib
import http.client
import json

import pytest

from tests.compose.conftest import timed
from tests.compose.stack import LOOPBACK, PEER_PORTS, Stack
from tests.e2e.harness.image import GREETING, REFERENCE, REPOSITORY, Image
from tests.e2e.harness.mirror import get, get_json
from tests.e2e.harness.processes import LabError, wait_until

pytestmark = pytest.mark.e2e

DAEMONS = ("tracker", "proxy", "peer1", "peer2")
PROMETHEUS_PORT = 9090
SCRAPED_S = 30.0
# What the image adds to its base: the environment with the dependencies.
OWN_BYTES_MAX = 120_000_000


def test_every_service_is_healthy_and_the_keys_are_made(stack: Stack) -> None:
    states = {name: one["State"] for name, one in stack.containers().items()}

    assert states.pop("keys")["ExitCode"] == 0
    assert {name: state["Health"]["Status"] for name, state in states.items()} == dict.fromkeys(
        ("registry", "prometheus", *DAEMONS), "healthy"
    )
    assert {name: one["RestartCount"] for name, one in stack.containers().items()} == dict.fromkeys(
        ("keys", *states), 0
    )


@pytest.mark.parametrize("peer", sorted(PEER_PORTS))
def test_a_peers_mirror_serves_what_the_registry_holds(
    stack: Stack, image: Image, peer: str
) -> None:
    with timed(f"pull by {peer}"):
        index = f"/v2/{REPOSITORY}/manifests/{REFERENCE.rpartition(':')[2]}"
        status, body = get(stack.host, LOOPBACK, PEER_PORTS[peer], index)
        assert status == http.client.OK
        assert f"sha256:{hashlib.sha256(body).hexdigest()}" == image.index.digest
        for blob in (image.config, *image.layers):
            assert stack.mirror(peer).read_blob(REPOSITORY, blob.digest) == blob


def test_docker_pulls_and_runs_an_image_through_a_peer(stack: Stack, image: Image) -> None:
    # Docker Hub is out of reach here: what comes, comes through the mirror.
    stack.dockerd.pull(REFERENCE)

    assert stack.dockerd.image_id(REFERENCE) == image.config.digest
    assert stack.dockerd.run(REFERENCE) == GREETING
    stack.dockerd.command("image", "rm", REFERENCE)


def test_prewarm_puts_an_image_on_both_peers(stack: Stack) -> None:
    names = ("--tracker", "http://tracker:5209", "--endpoint", "http://proxy:5100")
    command = ("exec", "-T", "tracker", "p2pdist", "prewarm", REFERENCE, *names, "-o", "json")
    outcome = json.loads(stack.compose(*command, "--hosts", "peer*"))

    assert [(row["hosts"], row["ready"]) for row in outcome["dcs"]] == [(2, 2)]
    assert outcome["state"] == "done"


def test_prometheus_evaluates_every_rule(stack: Stack) -> None:
    def rules() -> dict[str, str]:
        page = get_json(stack.host, LOOPBACK, PROMETHEUS_PORT, "/api/v1/rules")
        return {
            rule["name"]: rule["health"]
            for group in page["data"]["groups"]
            for rule in group["rules"]
        }

    wait_until(lambda: set(rules().values()) == {"ok"}, "healthy rules", timeout_s=SCRAPED_S)
    assert {"P2pdistPrewarmLate", "p2pdist:prewarm_ready:ratio"} <= rules().keys()


def test_prometheus_sees_every_daemon(stack: Stack) -> None:
    def health() -> dict[str, str]:
        page = get_json(stack.host, LOOPBACK, PROMETHEUS_PORT, "/api/v1/targets?state=active")
        return {one["labels"]["instance"]: one["health"] for one in page["data"]["activeTargets"]}

    up = dict.fromkeys(("tracker:5209", "proxy:5109", "peer1:5309", "peer2:5309"), "up")
    wait_until(lambda: health() == up, f"targets {up}", timeout_s=SCRAPED_S)


def test_status_says_what_a_peer_does(stack: Stack) -> None:
    shown = stack.compose("exec", "-T", "peer1", "p2pdist", "status")

    assert shown.startswith("peer\n")


def test_only_loopback_has_published_ports(stack: Stack) -> None:
    published = {
        (name, binding["HostIp"], binding["HostPort"])
        for name, one in stack.containers().items()
        for bindings in one["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }

    assert published == {
        ("registry", LOOPBACK, "5000"),
        ("peer1", LOOPBACK, "5300"),
        ("peer2", LOOPBACK, "5310"),
        ("prometheus", LOOPBACK, "9090"),
    }


def test_every_container_is_confined(stack: Stack) -> None:
    for name, one in stack.containers().items():
        config = one["HostConfig"]
        assert config["ReadonlyRootfs"], name
        assert config["CapDrop"] == ["ALL"], name
        assert config["SecurityOpt"] == ["no-new-privileges:true"], name
        assert min(config["Memory"], config["NanoCpus"], config["PidsLimit"]) > 0, name


@pytest.mark.parametrize("path", ["/", "/opt/p2pdist", "/keys"])
def test_a_daemon_writes_only_its_own_state(stack: Stack, path: str) -> None:
    with pytest.raises(LabError, match=r"Read-only file system|Permission denied"):
        stack.compose("exec", "-T", "peer1", "touch", f"{path}/x")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_has_no_rights(stack: Stack, daemon: str) -> None:
    shown = stack.compose(
        "exec", "-T", daemon, "grep", "-E", "^(Uid|CapEff|NoNewPrivs)", "/proc/1/status"
    )

    assert [line.split()[:2] for line in shown.splitlines()] == [
        ["Uid:", "65532"],
        ["CapEff:", "0000000000000000"],
        ["NoNewPrivs:", "1"],
    ]


def test_a_second_start_keeps_the_keys(stack: Stack) -> None:
    read = ("exec", "-T", "proxy", "cat", "/keys/proxy.pub")
    before = stack.compose(*read)

    stack.compose("run", "--rm", "keys")

    assert before.strip()
    assert stack.compose(*read) == before


def test_the_health_check_fails_for_a_daemon_that_is_not_there(stack: Stack) -> None:
    configured = stack.containers()["peer1"]["Config"]["Healthcheck"]["Test"]
    assert configured[0] == "CMD"
    nobody = ("exec", "-T", "-e", "P2PDIST_ADMIN_PORT=1", "peer1", *configured[1:])

    with pytest.raises(LabError, match="Connection refused"):
        stack.compose(*nobody)


def test_the_image_is_small_and_says_how_to_use_it(stack: Stack) -> None:
    (inspected,) = json.loads(stack.dockerd.command("image", "inspect", "p2pdist"))
    layers = stack.dockerd.command("history", "--human=false", "--format", "{{.Size}}", "p2pdist")

    assert inspected["Config"]["User"] == "65532:65532"
    assert list(inspected["Config"]["Volumes"]) == ["/var/lib/p2pdist"]
    assert "Usage: p2pdist" in stack.dockerd.command("run", "--rm", "--read-only", "p2pdist")
    *ours, _base = [int(size) for size in layers.split()]
    assert sum(ours) < OWN_BYTES_MAX
