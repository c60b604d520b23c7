"""containerd as Kubernetes uses it: pulls by its CRI socket, with a snapshotter of ours."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any, ClassVar, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.e2e.harness.clients import CONTAINERD
from tests.e2e.harness.places import Place
from tests.e2e.harness.processes import LabError, Process, pids_with

NAMESPACE: Final = "k8s.io"
PULL_S: Final = 120.0
_PLUGIN: Final = """\
[proxy_plugins.p2pdist]
  type = "snapshot"
  address = "{socket}"
[proxy_plugins.p2pdist.exports]
  root = "{root}"
"""
_CONFIG_2: Final = f"""\
version = 2
{_PLUGIN}
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "p2pdist"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{{certs}}"
"""
# Of containerd 2, which pulls by its transfer service: that has a list of its own.
_CONFIG_3: Final = f"""\
version = 3
{_PLUGIN}  enable_remote_snapshot_annotations = "true"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "p2pdist"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{{certs}}"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "p2pdist"
"""


class CriContainerd:
    """A containerd in a place of its own, with state of its own."""

    namespaces: ClassVar[tuple[str, ...]] = (NAMESPACE,)
    """Of containers that are ended with it."""
    config_name: ClassVar[str] = "config.toml"
    """Below its directory."""

    def __init__(
        self,
        work: Path,
        snapshotter: Path,
        snapshots: Path,
        mirror_url: str,
        *,
        place: Place | None = None,
    ) -> None:
        """`work`: a short path, for sockets. `snapshotter`: its socket. `snapshots`: where its
        files are."""
        self.place = place or Place(work)
        self.hosts = work / "certs.d"
        hosts = self.hosts / "_default"
        hosts.mkdir(parents=True)
        text = f'[host."{mirror_url}"]\n  capabilities = ["pull", "resolve"]\n'
        (hosts / "hosts.toml").write_text(f'server = "{mirror_url}"\n{text}')
        self._config = work / self.config_name
        self._places = {"socket": snapshotter, "certs": self.hosts, "root": snapshots}
        self.socket = work / "c.sock"
        self._fifos = work / "fifos"  # seen by both, unlike those in /run
        self._fifos.mkdir()
        self._argv = [CONTAINERD, "--root", str(work / "root"), "--state", str(work / "cri")]
        self._argv += ["--address", str(self.socket), "--config", str(self._config)]
        self._log = work / "containerd.log"
        self.process: Process | None = None
        self._channel: grpc.Channel | None = None

    def start(self) -> None:
        """Start it, also after a kill. The snapshotter has mounted by then (`Place`)."""
        self.place.start()
        self.configure()
        self.process = Process("containerd", self.place.inside(*self._argv), self._log)
        self.process.start()
        self.process.wait_ready(self._answers)
        self._connect()

    def configure(self) -> None:
        """Write its configuration, before each start."""
        told = self.place.run(CONTAINERD, "--version")  # containerd GITHUB-PATH VERSION COMMIT
        form = _CONFIG_2 if told.split()[2].startswith("1.") else _CONFIG_3
        self._config.write_text(form.format_map(self._places))

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill9()

    def stop(self) -> None:
        """End it, its containers, and what it started to watch over them: they would go on."""
        self._disconnect()
        if self.process is not None and self.process.alive:
            for namespace in self.namespaces:
                with contextlib.suppress(LabError):
                    self._end_all(namespace)
            self.process.stop()
        self.place.stop()
        for pid in pids_with(str(self.socket)):
            os.kill(pid, signal.SIGKILL)

    def _end_all(self, namespace: str) -> None:
        for name in self.ctr("tasks", "list", "--quiet", namespace=namespace).split():
            self.ctr("tasks", "kill", "--signal", "KILL", name, namespace=namespace)
        for name in self.ctr("containers", "list", "--quiet", namespace=namespace).split():
            self.ctr("tasks", "delete", "--force", name, namespace=namespace)

    def pull(self, reference: str, account: tuple[str, str] | None = None) -> str:
        """Pull as a kubelet does, with a name and a password where the pod has them; return what
        containerd calls the image."""
        asked = _PullImage(image=_ImageSpec(image=reference))
        if account is not None:
            asked.auth.username, asked.auth.password = account
        return str(self._ask("PullImage", asked, _PulledImage).image_ref)

    def remove(self, reference: str) -> None:
        self._ask("RemoveImage", _RemoveImage(image=_ImageSpec(image=reference)), _Nothing)

    def run(self, reference: str, *command: str, name: str = "once", stays: bool = False) -> str:
        """Run a command in a new container and return what it prints; `stays`: leave it running."""
        how = ["--detach"] if stays else ["--rm"]
        how += ["--snapshotter", "p2pdist", "--fifo-dir", str(self._fifos)]
        return self.ctr("run", *how, reference, name, *command)

    def ctr(self, *arguments: str, namespace: str = NAMESPACE) -> str:
        words = ["ctr", "--address", str(self.socket), "--namespace", namespace]
        return self.place.run(*words, *arguments, timeout_s=PULL_S)

    def _ask(self, method: str, asked: Any, answer: Any) -> Any:
        assert self._channel is not None
        call = self._channel.unary_unary(
            f"/runtime.v1.ImageService/{method}",
            request_serializer=type(asked).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return call(asked, timeout=PULL_S)
        except grpc.RpcError as error:
            raise LabError(f"{method}: {error.code()}: {error.details()}") from None

    def _connect(self) -> None:
        """A kubelet has its connection before it asks for anything."""
        self._disconnect()
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")
        grpc.channel_ready_future(self._channel).result(timeout=PULL_S)

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _answers(self) -> bool:
        with contextlib.suppress(LabError):
            self.ctr("version")
            return True
        return False


def _messages() -> dict[str, Any]:
    """What is used of Kubernetes' `cri-api`, `pkg/apis/runtime/v1/api.proto`."""
    text, message = (
        descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/cri.proto", package="runtime.v1", syntax="proto3"
    )
    image = ("image", ".runtime.v1.ImageSpec")
    fields: dict[str, list[tuple[str, str]]] = {
        "ImageSpec": [("image", "")],
        "AuthConfig": [("username", ""), ("password", "")],
        "PullImageRequest": [image, ("auth", ".runtime.v1.AuthConfig")],
        "PullImageResponse": [("image_ref", "")],
        "RemoveImageRequest": [image],
        "RemoveImageResponse": [],
    }
    for name, parts in fields.items():
        made = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(parts, start=1):
            made.field.add(
                name=field, number=number, type=message if kind else text, type_name=kind or None,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"runtime.v1.{name}"))
        for name in fields
    }


_made: Final = _messages()
_ImageSpec, _, _PullImage, _PulledImage, _RemoveImage, _Nothing = _made.values()
