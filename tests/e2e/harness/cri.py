"""containerd as Kubernetes uses it: pulls by its CRI socket, with a snapshotter of ours."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.e2e.harness.clients import CONTAINERD
from tests.e2e.harness.netns import Host
from tests.e2e.harness.processes import LabError, Process, pids_with, run

NAMESPACE: Final = "k8s.io"
PULL_S: Final = 120.0
# A mount namespace that sees the mounts of the host, such as the snapshotter's, and shows it none.
# It stays when containerd is killed: what watches over a container has its socket in /run.
_PLACE: Final = "mount -t tmpfs tmpfs /run; echo ready; exec sleep infinity"
_CONFIG: Final = """\
version = 2
[proxy_plugins.p2pdist]
  type = "snapshot"
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "p2pdist"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{certs}"
"""


class CriContainerd:
    """A containerd on this host, with state of its own."""

    def __init__(
        self, work: Path, snapshotter: Path, mirror_url: str, *, host: Host | None = None
    ) -> None:
        """`work`: a short path, for sockets. `snapshotter`: its socket. `host`: in whose network it
        is."""
        self.hosts = work / "certs.d"
        hosts = self.hosts / "_default"
        hosts.mkdir(parents=True)
        text = f'[host."{mirror_url}"]\n  capabilities = ["pull", "resolve"]\n'
        (hosts / "hosts.toml").write_text(f'server = "{mirror_url}"\n{text}')
        config = work / "config.toml"
        config.write_text(_CONFIG.format(socket=snapshotter, certs=self.hosts))
        self._socket = work / "c.sock"
        self._fifos = work / "fifos"  # seen by both, unlike those in /run
        self._fifos.mkdir()
        unshared = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", _PLACE]
        if host is not None:
            unshared = host.inside(*unshared)
        self._place = Process("mount namespace", unshared, work / "place.log")
        self._argv = [CONTAINERD, "--root", str(work / "root"), "--state", str(work / "cri")]
        self._argv += ["--address", str(self._socket), "--config", str(config)]
        self._log = work / "containerd.log"
        self.process: Process | None = None

    def start(self) -> None:
        """Start it, also after a kill. The snapshotter has mounted by then: where mounts of the
        host are private, later ones are not seen."""
        if not self._place.alive:
            self._place.start()
            self._place.wait_ready(lambda: b"ready" in self._place.log.read_bytes())
        inside = ["nsenter", "--mount", "--net", f"--target={self._place.pid}", *self._argv]
        self.process = Process("containerd", inside, self._log)
        self.process.start()
        self.process.wait_ready(self._answers)

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill9()

    def stop(self) -> None:
        """End it, its containers, and what it started to watch over them: they would go on."""
        if self.process is not None and self.process.alive:
            with contextlib.suppress(LabError):
                for name in self.ctr("tasks", "list", "--quiet").split():
                    self.ctr("tasks", "kill", "--signal", "KILL", name)
                for name in self.ctr("containers", "list", "--quiet").split():
                    self.ctr("tasks", "delete", "--force", name)
            self.process.stop()
        self._place.stop()
        for pid in pids_with(str(self._socket)):
            os.kill(pid, signal.SIGKILL)

    def pull(self, reference: str) -> str:
        """Pull as a kubelet does; return what containerd calls the image."""
        asked = _PullImage(image=_ImageSpec(image=reference))
        return str(self._ask("PullImage", asked, _PulledImage).image_ref)

    def remove(self, reference: str) -> None:
        self._ask("RemoveImage", _RemoveImage(image=_ImageSpec(image=reference)), _Nothing)

    def run(self, reference: str, *command: str, name: str = "once", stays: bool = False) -> str:
        """Run a command in a new container and return what it prints; `stays`: leave it running."""
        how = ["--detach"] if stays else ["--rm"]
        how += ["--snapshotter", "p2pdist", "--fifo-dir", str(self._fifos)]
        return self.ctr("run", *how, reference, name, *command)

    def ctr(self, *arguments: str) -> str:
        words = ["ctr", "--address", str(self._socket), "--namespace", NAMESPACE]
        return run([*words, *arguments], timeout_s=PULL_S)

    def _ask(self, method: str, asked: Any, answer: Any) -> Any:
        with grpc.insecure_channel(f"unix:{self._socket}") as channel:
            call = channel.unary_unary(
                f"/runtime.v1.ImageService/{method}",
                request_serializer=type(asked).SerializeToString,
                response_deserializer=answer.FromString,
            )
            try:
                return call(asked, timeout=PULL_S)
            except grpc.RpcError as error:
                raise LabError(f"{method}: {error.code()}: {error.details()}") from None

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
    fields: dict[str, tuple[str, str]] = {
        "ImageSpec": ("image", ""),
        "PullImageRequest": ("image", ".runtime.v1.ImageSpec"),
        "PullImageResponse": ("image_ref", ""),
        "RemoveImageRequest": ("image", ".runtime.v1.ImageSpec"),
        "RemoveImageResponse": ("", ""),
    }
    for name, (field, kind) in fields.items():
        made = file.message_type.add(name=name)
        if field:
            made.field.add(
                name=field, number=1, type=message if kind else text, type_name=kind or None,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"runtime.v1.{name}"))
        for name in fields
    }


_made: Final = _messages()
_ImageSpec, _PullImage, _PulledImage, _RemoveImage, _Nothing = _made.values()
