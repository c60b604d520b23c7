"""The messages of containerd's snapshots service, version 1, and its methods.

Described here field by field (containerd, `api/services/snapshots/v1/snapshots.proto` and
`api/types/mount.proto`); no code is generated, so none has to be kept beside a compiler.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)

SERVICE: Final = "containerd.services.snapshots.v1.Snapshots"

_PACKAGE: Final = "containerd.services.snapshots.v1"
_Field = descriptor_pb2.FieldDescriptorProto

_TYPES: Final = {"string": _Field.TYPE_STRING, "int64": _Field.TYPE_INT64}
_TIME, _MASK = ".google.protobuf.Timestamp", ".google.protobuf.FieldMask"
_MOUNT, _INFO = f".{_PACKAGE}.Mount", f".{_PACKAGE}.Info"

_Fields = dict[str, tuple[int, str]]
"""Number, and `string`, `strings`, `int64`, `labels`, or the name of a message; `*` before it: many
of them."""

_MESSAGES: Final[dict[str, _Fields]] = {
    "Mount": {
        "type": (1, "string"),
        "source": (2, "string"),
        "target": (3, "string"),
        "options": (4, "*string"),
    },
    "Info": {
        "name": (1, "string"),
        "parent": (2, "string"),
        "kind": (3, "int64"),  # an enumeration is one on the wire
        "created_at": (4, _TIME),
        "updated_at": (5, _TIME),
        "labels": (6, "labels"),
    },
    "PrepareSnapshotRequest": {
        "snapshotter": (1, "string"),
        "key": (2, "string"),
        "parent": (3, "string"),
        "labels": (4, "labels"),
    },
    "MountsResponse": {"mounts": (1, f"*{_MOUNT}")},
    "KeyRequest": {"snapshotter": (1, "string"), "key": (2, "string")},
    "CommitSnapshotRequest": {
        "snapshotter": (1, "string"),
        "name": (2, "string"),
        "key": (3, "string"),
        "labels": (4, "labels"),
        "parent": (5, "string"),
    },
    "InfoResponse": {"info": (1, _INFO)},
    "UpdateSnapshotRequest": {
        "snapshotter": (1, "string"),
        "info": (2, _INFO),
        "update_mask": (3, _MASK),
    },
    "ListSnapshotsRequest": {"snapshotter": (1, "string"), "filters": (2, "*string")},
    "ListSnapshotsResponse": {"info": (1, f"*{_INFO}")},
    "UsageResponse": {"size": (1, "int64"), "inodes": (2, "int64")},
    "CleanupRequest": {"snapshotter": (1, "string")},
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="p2pdist/snapshots.proto", package=_PACKAGE, syntax="proto3"
    )
    file.dependency.extend([timestamp_pb2.DESCRIPTOR.name, field_mask_pb2.DESCRIPTOR.name])
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number, label=_Field.LABEL_OPTIONAL)
            if kind == "labels":
                _map_of_strings(message)
                kind = f"*.{_PACKAGE}.{name}.LabelsEntry"
            if kind.startswith("*"):
                field.label, kind = _Field.LABEL_REPEATED, kind[1:]
            if kind.startswith("."):
                field.type, field.type_name = _Field.TYPE_MESSAGE, kind
            else:
                field.type = _TYPES[kind]
    return file


def _map_of_strings(message: descriptor_pb2.DescriptorProto) -> None:
    entry = message.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(
            name=name, number=number, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
        )


_pool: Final = descriptor_pool.DescriptorPool()
for _known in (timestamp_pb2, field_mask_pb2):
    _pool.AddSerializedFile(_known.DESCRIPTOR.serialized_pb)
_pool.AddSerializedFile(_described().SerializeToString())


def _class(name: str, package: str = _PACKAGE) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{package}.{name}"))


Timestamp: Final = _class("Timestamp", "google.protobuf")
Mount: Final = _class("Mount")
Info: Final = _class("Info")
PrepareRequest: Final = _class("PrepareSnapshotRequest")
"""Of View, too."""
MountsResponse: Final = _class("MountsResponse")
"""Of Prepare, View and Mounts."""
KeyRequest: Final = _class("KeyRequest")
"""Of Mounts, Remove, Stat and Usage."""
CommitRequest: Final = _class("CommitSnapshotRequest")
InfoResponse: Final = _class("InfoResponse")
"""Of Stat and Update."""
UpdateRequest: Final = _class("UpdateSnapshotRequest")
ListRequest: Final = _class("ListSnapshotsRequest")
ListResponse: Final = _class("ListSnapshotsResponse")
UsageResponse: Final = _class("UsageResponse")
CleanupRequest: Final = _class("CleanupRequest")
Empty: Final = empty_pb2.Empty

METHODS: Final[dict[str, tuple[Any, Any]]] = {
    "Prepare": (PrepareRequest, MountsResponse),
    "View": (PrepareRequest, MountsResponse),
    "Mounts": (KeyRequest, MountsResponse),
    "Commit": (CommitRequest, Empty),
    "Remove": (KeyRequest, Empty),
    "Stat": (KeyRequest, InfoResponse),
    "Update": (UpdateRequest, InfoResponse),
    "List": (ListRequest, ListResponse),
    "Usage": (KeyRequest, UsageResponse),
    "Cleanup": (CleanupRequest, Empty),
}
"""Request and answer; List answers with a stream."""
