"""Cluster secrets that no file holds."""

from __future__ import annotations

from pathlib import Path

from p2pdist.model.cluster_secrets import ClusterSecrets, SecretSource
from p2pdist.process.secret_holder import SecretHolder


def only(*each: bytes) -> ClusterSecrets:
    return ClusterSecrets(each)


def always(*each: bytes) -> SecretSource:
    """What a transport or a client asks at each handshake."""
    believed = only(*each)
    return lambda: believed


def held(*each: bytes) -> SecretHolder:
    """What a daemon holds; there is no file to look at."""
    return SecretHolder(Path("no such file"), only(*each))
