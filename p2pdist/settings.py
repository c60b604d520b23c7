"""All settings: one table that gives the file's keys, the `P2PDIST_*` variables, the flags and the
reference page.

A section is a frozen record; each field carries its kind (how it is read, `settings_kinds`), its
unit and one line of help. Core objects receive values, never these records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from p2pdist.model.members import Address
from p2pdist.model.private_places import IpNetwork, PrivatePlace
from p2pdist.settings_kinds import (
    ADDRESS,
    ADDRESSES,
    COUNT,
    DURATION,
    FLAG,
    HOST,
    HOSTS,
    LABELS,
    NETWORKS,
    PATH,
    PRIVATE_PLACES,
    PROXIES,
    RATE,
    RATIO,
    ROOM,
    TEXT,
    TEXTS,
    TLS_HOSTS,
    TRACKERS,
    URL,
    URLS,
    WHOLE,
    Kind,
    choice,
)


def _setting(kind: Kind, default: Any, text: str) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text})


_IDENTITY: Final = (
    "Directory with ca.pem, cert.pem and key.pem, as `p2pdist ca issue --role {}` writes it; with "
    "it, control connections are TLS. Empty: the cluster secret alone."
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all daemons of one cluster share."""

    secret_file: Path | None = _setting(
        PATH,
        None,
        "File with the cluster secret (16 bytes or more), or with two while one replaces the other,"
        " a line each; taken up without a restart when it changes.",
    )
    proxy_keys: tuple[str, ...] = _setting(
        TEXTS,
        (),
        "Public keys of the proxies to believe, base64, as `p2pdist keys init` prints them.",
    )
    proxy_keys_file: Path | None = _setting(
        PATH, None, "File with more such keys, one a line, as `p2pdist keys init` writes proxy.pub."
    )
    require_identity: bool = _setting(
        FLAG,
        False,
        "Control connections, links and orders of jobs only with certificates (`identity_dir` of "
        "each daemon, `p2pdist ca issue --role operator` for people); else the cluster secret is "
        "enough.",
    )
    member_networks: tuple[IpNetwork, ...] = _setting(
        NETWORKS,
        (),
        "At trackers and proxies: networks, such as 10.0.0.0/8, in which hosts may announce "
        "addresses (ports from 1024) that they are not seen from; others are told to nobody.",
    )


@dataclass(frozen=True, slots=True)
class Host:
    """Who this host is and where it stands."""

    state_dir: Path = _setting(PATH, Path("/var/lib/p2pdist"), "Directory for everything kept.")
    dc: str = _setting(TEXT, "dc1", "Datacenter of this host.")
    rack: str = _setting(TEXT, "", "Rack or zone; hosts of the same rack are preferred.")
    advertise: tuple[Address, ...] = _setting(
        ADDRESSES, (), "Exchange addresses to tell others; empty: the one listened on."
    )
    name: str = _setting(
        TEXT, "", "What selectors and people call this host; empty: the machine's host name."
    )
    labels: tuple[str, ...] = _setting(
        LABELS, (), "What selectors may choose by, such as role=web."
    )
    http_names: tuple[str, ...] = _setting(
        TEXTS,
        (),
        "Further names with a dot that HTTP ports on loopback are called by, such as one in "
        "/etc/hosts; others get 421.",
    )


@dataclass(frozen=True, slots=True)
class Tracker:
    listen: Address = _setting(ADDRESS, Address("127.0.0.1", 5200), "Control connections of hosts.")
    admin_listen: Address = _setting(
        ADDRESS, Address("127.0.0.1", 5209), "Metrics, health, status."
    )
    announce_interval_s: float = _setting(DURATION, 1.0, "How often hosts announce changes.")
    heartbeat_s: float = _setting(DURATION, 10.0, "How often hosts show that they live.")
    federation: tuple[str, ...] = _setting(
        TRACKERS, (), "Trackers of the other datacenters, such as tcp://10.1.0.2:5200."
    )
    identity_dir: Path | None = _setting(PATH, None, _IDENTITY.format("tracker"))
    ca_dir: Path | None = _setting(
        PATH,
        None,
        "Directory of `p2pdist ca init` (`ca.key`, `ca.pem`): with it this tracker renews the "
        "certificates of the hosts that are connected to it, and its own.",
    )
    join: str = _setting(
        TEXT,
        "",
        "HOST:PORT that join tokens name this tracker by; with it and `ca_dir`, hosts with one "
        "of `p2pdist ca token` get their first certificate at that port; empty: nobody does.",
    )


@dataclass(frozen=True, slots=True)
class Proxy:
    listen: Address = _setting(ADDRESS, Address("127.0.0.1", 5100), "The `/v2/` pull surface.")
    exchange_listen: Address = _setting(ADDRESS, Address("127.0.0.1", 5101), "Chunk exchange.")
    admin_listen: Address = _setting(
        ADDRESS, Address("127.0.0.1", 5109), "Metrics, health, status."
    )
    key_file: Path | None = _setting(
        PATH, None, "Private key that signs chunk maps (PEM, Ed25519)."
    )
    trackers: tuple[str, ...] = _setting(TRACKERS, (), "Trackers, such as tcp://10.0.0.2:5200.")
    parents: tuple[str, ...] = _setting(
        PROXIES, (), "Proxies of other datacenters to copy from before asking upstream (base URLs)."
    )
    default_upstream: str = _setting(HOST, "docker.io", "Registry of requests that name none.")
    tag_ttl_s: float = _setting(DURATION, 30.0, "How long a tag is not looked up again.")
    upload_rate: int = _setting(
        RATE, 0, "Payload sent to other hosts, at most, by exchange and over `/v2/`; 0: no limit."
    )
    links_max: int = _setting(
        COUNT, 32_768, "Exchange links at a time; more hosts are refused and use their peers."
    )
    trace_file: Path | None = _setting(
        PATH,
        None,
        "File to which all is added that the proxy hears of blobs and decides, for "
        "`python -m bench.sim replay`; up to 4 GiB, a few KB for each chunk.",
    )
    layer_index: bool = _setting(
        FLAG,
        True,
        "Index each layer that is brought in, so that hosts can read single files of it; "
        "one core for a second per 100 MB.",
    )
    stale_if_error_s: float = _setting(
        DURATION, 86400.0, "How long a known tag is served while upstream fails."
    )
    caller_grace_s: float = _setting(
        DURATION,
        600.0,
        "How long a caller whom a `passthrough` registry let before keeps access while that one "
        "does not answer.",
    )
    caller_questions: int = _setting(
        WHOLE,
        6000,
        "Questions to registries on behalf of one host in a minute, by its certificate or else by "
        "its address, at most, and that many at once; 0: no limit.",
    )
    caller_rate: int = _setting(
        RATE,
        500_000_000,
        "Payload read of registries on behalf of one host, at most; what 400 s of it bring may be "
        "at once; 0: no limit.",
    )
    job_trackers: tuple[str, ...] = _setting(
        URLS,
        (),
        "Admin URLs of the trackers that get the jobs of [[replicate]], "
        "such as http://10.0.0.2:5209.",
    )
    notify_secret_file: Path | None = _setting(
        PATH, None, "File with the secret (16 bytes or more) that registries notify us with."
    )
    identity_dir: Path | None = _setting(PATH, None, _IDENTITY.format("proxy"))
    open_to: tuple[IpNetwork, ...] = _setting(
        NETWORKS,
        (),
        "Networks whose hosts may ask at `listen` without a certificate, such as 10.0.0.0/8, where "
        "`cluster.require_identity` is set.",
    )


@dataclass(frozen=True, slots=True)
class Peer:
    listen: Address = _setting(ADDRESS, Address("127.0.0.1", 5300), "The mirror for the runtime.")
    exchange_listen: Address = _setting(ADDRESS, Address("127.0.0.1", 5301), "Chunk exchange.")
    admin_listen: Address = _setting(
        ADDRESS, Address("127.0.0.1", 5309), "Metrics, health, status."
    )
    trackers: tuple[str, ...] = _setting(TRACKERS, (), "Trackers, such as tcp://10.0.0.2:5200.")
    proxies: tuple[str, ...] = _setting(PROXIES, (), "Proxies, such as http://10.0.0.1:5100.")
    direct: bool = _setting(FLAG, True, "Ask the registry itself when everything else fails.")
    default_upstream: str = _setting(HOST, "docker.io", "Registry of requests that name none.")
    patience_s: float = _setting(
        DURATION, 60.0, "How long a body that has begun waits for any source to come back."
    )
    upload_rate: int = _setting(
        RATE,
        100_000_000,
        "Payload sent to other hosts, at most, by exchange and over `/v2/`; 0: no limit.",
    )
    fill_rate: int = _setting(
        RATE,
        0,
        "Payload for the rest of images that containers run from already, at most; 0: no limit.",
    )
    links_max: int = _setting(COUNT, 1024, "Exchange links at a time; more hosts are refused.")
    trace_file: Path | None = _setting(
        PATH,
        None,
        "File to which all is added that the peer hears of blobs and decides, for "
        "`python -m bench.sim replay`; up to 4 GiB, a few KB for each chunk.",
    )
    tag_ttl_s: float = _setting(DURATION, 30.0, "How long a tag is not looked up again.")
    into_runtime: str = _setting(
        choice("", "docker", "containerd"),
        "",
        "The runtime that `p2pdist prewarm --into-runtime` may pull into; empty: none.",
    )
    runtime_socket: Path | None = _setting(
        PATH, None, "Its socket; empty: /run/docker.sock or /run/containerd/containerd.sock."
    )
    runtime_namespace: str = _setting(TEXT, "k8s.io", "The namespace of containerd to pull into.")
    runtime_hosts_dir: Path = _setting(
        PATH,
        Path("/etc/containerd/certs.d"),
        "The directory of hosts.toml files, as containerd's `config_path` says.",
    )
    identity_dir: Path | None = _setting(PATH, None, _IDENTITY.format("peer"))


@dataclass(frozen=True, slots=True)
class Snapshotter:
    """Containers that start before their layers are here."""

    socket: Path = _setting(
        PATH,
        Path("/run/p2pdist/snapshotter.sock"),
        "Where containerd reaches the snapshotter; for root alone.",
    )
    admin_listen: Address = _setting(
        ADDRESS, Address("127.0.0.1", 5409), "Metrics, health, status."
    )
    mirror: str = _setting(
        URL, "http://127.0.0.1:5300", "The mirror of this host, `peer.listen` as a URL."
    )
    fill: bool = _setting(
        FLAG,
        True,
        "Bring the rest of what is shown to this host, when nobody waits for anything else.",
    )
    unpack: bool = _setting(
        FLAG,
        True,
        "Make plain files of layers that are here as a whole: new containers read those. "
        "They take the room that they take for any snapshotter.",
    )
    whole_namespaces: tuple[str, ...] = _setting(
        TEXTS,
        ("moby",),
        "containerd's namespaces in which images are fetched whole, as ever. moby is Docker's, "
        "whose `save` leaves out what is not there without a word; with an empty list its "
        "containers start before their layers are here, too.",
    )
    image_store: bool = _setting(
        FLAG,
        False,
        "Keep an image store for Podman, Buildah and CRI-O, at `snapshotter/images` below "
        "`host.state_dir`: the layers of an image that they are about to pull.",
    )
    image_store_engines: tuple[str, ...] = _setting(
        TEXTS,
        ("/var/lib/containers/storage",),
        "Directories in which engines that use it have their own images and containers (`podman "
        "info`, graphRoot): layers that these name are never removed.",
    )


@dataclass(frozen=True, slots=True)
class StoreSection:
    max_bytes: int = _setting(ROOM, 50_000_000_000, "Room for blobs.")
    high_watermark: float = _setting(RATIO, 0.90, "Eviction starts above this share of max_bytes.")
    low_watermark: float = _setting(RATIO, 0.80, "Eviction stops below this share of max_bytes.")
    scrub_rate: int = _setting(
        RATE, 2_000_000, "How fast stored blobs are hashed again in the background; 0: not at all."
    )


@dataclass(frozen=True, slots=True)
class Log:
    level: str = _setting(
        choice("debug", "info", "warning", "error"), "info", "Least level logged."
    )
    format: str = _setting(choice("auto", "text", "json"), "auto", "auto: text on a terminal.")


@dataclass(frozen=True, slots=True)
class Upstream:
    """One registry that proxies may read; `[[upstream]]` in the file, as often as needed."""

    host: str = _setting(HOST, "", "Name in image references, such as docker.io or ghcr.io.")
    url: str = _setting(URL, "", "Base URL; empty: https:// and the host.")
    access: str = _setting(
        choice("public", "private", "shared", "passthrough"),
        "public",
        "With credentials: `shared` serves what they can read to every host, else to none. "
        "`passthrough`: without any; those of each caller decide what it may read.",
    )
    username: str = _setting(TEXT, "", "User for the registry.")
    password_file: Path | None = _setting(PATH, None, "File with the password or token.")
    auth_file: Path | None = _setting(
        PATH,
        None,
        "Instead: Docker's `config.json` or containers' `auth.json` with an account for `host`, "
        "credential helpers included.",
    )
    credential_helper: str = _setting(
        TEXT, "", "Instead: NAME of the program `docker-credential-NAME` that knows the account."
    )
    ca_file: Path | None = _setting(
        PATH, None, "Certificates (PEM) to believe beside the system's, for all it leads to."
    )
    cert_file: Path | None = _setting(
        PATH, None, "Client certificate (PEM), shown to the host of `url` only."
    )
    cert_key_file: Path | None = _setting(
        PATH, None, "Private key of `cert_file`; empty: it lies in the same file."
    )
    insecure: tuple[Address, ...] = _setting(
        TLS_HOSTS,
        (),
        "Hosts whose certificates are not checked, such as registry.corp:5443: whoever is in "
        "between can read the account and change tags.",
    )
    concurrency: int = _setting(
        WHOLE, 0, "Layers that a proxy reads from it at a time; 0: no limit of its own."
    )
    auth_hosts: tuple[str, ...] = _setting(HOSTS, (), "Hosts that may ask for the credentials.")
    allow_private: tuple[PrivatePlace, ...] = _setting(
        PRIVATE_PLACES,
        (),
        "Private hosts and networks that it may lead to, such as minio.corp:9000 or 10.0.0.0/8; "
        "without a port: at 80, 443 and the port of `url`. Its own host and port are one of them "
        "once a place is named, or if `url` has an address.",
    )

    @property
    def has_account(self) -> bool:
        return bool(self.username or self.auth_file or self.credential_helper)

    @property
    def base_url(self) -> str:
        if self.url:
            return self.url.rstrip("/")
        return (
            "https://registry-1.docker.io" if self.host == "docker.io" else f"https://{self.host}"
        )


@dataclass(frozen=True, slots=True)
class Replicate:
    """Images to keep in step; `[[replicate]]` in the file, as often as needed."""

    name: str = _setting(TEXT, "", "Name of the rule, in metrics and logs.")
    images: tuple[str, ...] = _setting(
        TEXTS, (), "Patterns `registry/repository[:tag]`, `*` for anything; no tag: all tags."
    )
    dcs: tuple[str, ...] = _setting(TEXTS, (), "Datacenters; empty: all.")
    hosts: str = _setting(TEXT, "", "Hosts, as `p2pdist prewarm --hosts`; empty: proxies only.")
    poll: float = _setting(
        DURATION, 0.0, "How often the registry is asked as well; 0: by notification only."
    )
    rate: int = _setting(RATE, 0, "Payload into each host, at most; 0: no limit.")
    dc_rate: int = _setting(RATE, 0, "Payload into each datacenter, at most; 0: no limit.")
    pin: float = _setting(DURATION, 7 * 86400.0, "How long nothing of an image is evicted.")
    platform: str = _setting(TEXT, "", "Platform, such as linux/amd64; empty: each host's own.")
    priority: int = _setting(WHOLE, 0, "Jobs of a higher one go first, -100 to 100.")


@dataclass(frozen=True, slots=True)
class Settings:
    cluster: Cluster = field(default_factory=Cluster)
    host: Host = field(default_factory=Host)
    tracker: Tracker = field(default_factory=Tracker)
    proxy: Proxy = field(default_factory=Proxy)
    peer: Peer = field(default_factory=Peer)
    snapshotter: Snapshotter = field(default_factory=Snapshotter)
    store: StoreSection = field(default_factory=StoreSection)
    log: Log = field(default_factory=Log)
    upstream: tuple[Upstream, ...] = (Upstream(host="docker.io"),)
    replicate: tuple[Replicate, ...] = ()


SECTIONS: Final[dict[str, type[Any]]] = {
    "cluster": Cluster,
    "host": Host,
    "tracker": Tracker,
    "proxy": Proxy,
    "peer": Peer,
    "snapshotter": Snapshotter,
    "store": StoreSection,
    "log": Log,
}


TABLES: Final[dict[str, type[Any]]] = {"upstream": Upstream, "replicate": Replicate}
"""Those that may be there several times, in the file alone."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting of the table."""

    section: str
    key: str
    kind: Kind
    help: str
    default: Any

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        return f"P2PDIST_{self.section.upper()}__{self.key.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.section}-{self.key}".replace("_", "-")


def leaves_of(section: str, record: type[Any]) -> Iterator[Leaf]:
    for item in dataclasses.fields(record):
        yield Leaf(section, item.name, item.metadata["kind"], item.metadata["help"], item.default)


def all_leaves() -> list[Leaf]:
    """Every setting but the repeated tables (`TABLES`), in the order of the file."""
    return [leaf for name, record in SECTIONS.items() for leaf in leaves_of(name, record)]


def show(value: Any) -> Any:
    """A value as the file would hold it."""
    if isinstance(value, (Path, Address, PrivatePlace)):
        return str(value)
    if isinstance(value, tuple):
        return [show(part) for part in value]
    return "" if value is None else value
