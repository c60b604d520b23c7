"""Debian's docker-registry as the upstream, and what it served according to its own log."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.harness.image import Image
from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, Process

PORT: Final = 5000
_PAYLOAD = re.compile(r"^/v2/.+/(?:blobs|manifests)/[^/]+$")


@dataclass(frozen=True, slots=True)
class Served:
    """One answered request, from a line of the registry's log."""

    method: str
    path: str
    status: int
    body_bytes: int
    client: str
    """The address that asked."""


class Registry:
    """A docker-registry process over a storage directory that outlives it."""

    def __init__(self, host: Host, storage: Path, work: Path) -> None:
        self.host = host
        self._config = work / "registry.yml"
        self._config.write_text(_config_text(storage))
        argv = host.inside("docker-registry", "serve", str(self._config))
        self.process = Process("docker-registry", argv, work / "registry.log")

    @property
    def endpoint(self) -> str:
        return f"{self.host.address}:{PORT}"

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._answers)

    def push(self, image: Image, reference: str) -> None:
        """Push `image` as `reference` (`library/app:1`), its bytes unchanged."""
        source, target = f"oci:{image.layout}:1", f"docker://{self.endpoint}/{reference}"
        options = ["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]
        options.append("--preserve-digests")
        self.host.run("skopeo", *options, source, target, timeout_s=120.0)

    def served(self) -> list[Served]:
        """Return the requests answered so far; a request appears once its answer has ended."""
        lines = self.process.log.read_text(errors="replace").splitlines()
        return [served for line in lines if (served := _parse(line)) is not None]

    def payload_bytes(self) -> int:
        """Return the body bytes of blobs and manifests that were sent, of cut answers too."""
        return sum(
            answer.body_bytes
            for answer in self.served()
            if answer.method == "GET" and answer.status < 300 and _PAYLOAD.match(answer.path)
        )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.host.connect(self.host.address, PORT).close()
            return True
        return False


def _config_text(storage: Path) -> str:
    # JSON is YAML. The JSON log has `http.response.written`: body bytes that really went out.
    config = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"0.0.0.0:{PORT}"},
    }
    return json.dumps(config)


def _parse(line: str) -> Served | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None  # the few lines before the logger is configured
    if entry.get("msg") != "response completed":
        return None
    try:
        return Served(
            method=entry["http.request.method"],
            path=entry["http.request.uri"].partition("?")[0],
            status=entry["http.response.status"],
            body_bytes=entry["http.response.written"],
            client=entry["http.request.remoteaddr"].rpartition(":")[0],
        )
    except KeyError as error:
        raise LabError(f"docker-registry logs without {error}: {line}") from None
