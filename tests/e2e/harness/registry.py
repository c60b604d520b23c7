"""Debian's docker-registry as the upstream, and what it served according to its own log."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from tests.e2e.harness.image import Image
from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, Process

PORT: Final = 5000
USER: Final = "puller"
PASSWORD: Final = "correct horse"
# bcrypt, which is all that docker-registry takes.
HTPASSWD: Final = "$2b$05$OPJzptsvPi.d27rW8a0fJOWBfL13OxtDCMYXI.4clO078D9CbCGGG"
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

    def __init__(
        self,
        host: Host,
        storage: Path,
        work: Path,
        *,
        private: bool = False,
        notify: tuple[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """`notify`: URL and bearer secret of who is told of each push. `tls`: certificate and key,
        with which it listens where the world's registries do."""
        self.host = host
        self._port = PORT if tls is None else 443
        self.private = private
        htpasswd = None
        if private:
            htpasswd = work / f"htpasswd-{host.name}"
            htpasswd.write_text(f"{USER}:{HTPASSWD}\n")
        config = work / f"registry-{host.name}.yml"
        config.write_text(_config_text(storage, htpasswd, notify, self._port, tls))
        argv = host.inside("docker-registry", "serve", str(config))
        log = work / f"registry-{host.name}.log"
        self.process = Process(f"docker-registry on {host.name}", argv, log)

    @property
    def endpoint(self) -> str:
        return f"{self.host.address}:{PORT}"

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self._answers)

    def push(self, image: Image, reference: str) -> None:
        """Push `image` as `reference` (`library/app:1`), its bytes unchanged.

        By hand: no tool of Debian's pushes a Docker manifest list as it is.
        """
        repository, _, tag = reference.rpartition(":")
        manifests = image.manifests()
        for path in sorted((image.layout / "blobs" / "sha256").iterdir()):
            if f"sha256:{path.name}" not in manifests:
                self._push_blob(repository, path)
        for digest, (media_type, body) in manifests.items():
            name = tag if digest == image.index.digest else digest
            path_of = f"/v2/{repository}/manifests/{name}"
            self._ask("PUT", path_of, body, 201, {"Content-Type": media_type})

    def _push_blob(self, repository: str, path: Path) -> None:
        start = self._ask("POST", f"/v2/{repository}/blobs/uploads/", b"", 202)
        target = urlsplit(start["Location"])
        query = f"{target.query}&digest=sha256:{path.name}"
        with path.open("rb") as file:
            self._ask(
                "PUT",
                f"{target.path}?{query}",
                file,
                201,
                {"Content-Length": str(path.stat().st_size)},
            )

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | BinaryIO,
        expected: int,
        headers: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        """Send one request, raise LabError for another status; return the answer's headers."""
        sent = dict(headers or {})
        if self.private:
            token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            sent["Authorization"] = f"Basic {token}"
        connection = http.client.HTTPConnection(self.host.address, PORT, timeout=60)
        connection.sock = self.host.connect(self.host.address, PORT)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != expected:
            raise LabError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return dict(answer.headers)

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
            self.host.connect(self.host.address, self._port).close()
            return True
        return False


def _config_text(
    storage: Path,
    htpasswd: Path | None,
    notify: tuple[str, str] | None,
    port: int,
    tls: tuple[Path, Path] | None,
) -> str:
    # JSON is YAML. The JSON log has `http.response.written`: body bytes that really went out.
    http: dict[str, object] = {"addr": f"0.0.0.0:{port}"}
    if tls is not None:
        certificate, key = map(str, tls)
        http["tls"] = {"certificate": certificate, "key": key}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": http,
    }
    if htpasswd is not None:
        config["auth"] = {"htpasswd": {"realm": "lab", "path": str(htpasswd)}}
    if notify is not None:
        url, secret = notify
        endpoint = {
            "name": "p2pdist",
            "url": url,
            "headers": {"Authorization": [f"Bearer {secret}"]},
            "timeout": "2s",
            "threshold": 3,
            "backoff": "1s",
        }
        config["notifications"] = {"endpoints": [endpoint]}
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
