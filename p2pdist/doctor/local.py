"""Checks of this host: settings, keys, disk, limits."""

from __future__ import annotations

import base64
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from p2pdist.doctor.findings import Finding, Level, failed, passed, registries_text, warned
from p2pdist.errors import ConfigError
from p2pdist.model.health import RULES, Reason
from p2pdist.model.members import Address, Role
from p2pdist.process.certificates import span_text
from p2pdist.process.host_identity import host_identity
from p2pdist.process.identity import proxy_keys, read_secrets, read_signer
from p2pdist.process.keys import KEY_NAME, SECRET_NAME, find_or_make_keys
from p2pdist.registry.reading.entries import upstream_entries
from p2pdist.settings import Settings

# A link and a body cost a descriptor each; a peer in a large swarm has some hundred of both.
DESCRIPTORS_MIN: Final = 512
DESCRIPTORS_ENOUGH: Final = 4096
MEMORY_MIN_BYTES: Final = 128 << 20
"""A classic peer under 64 streams stays below 96 MiB (fault matrix, row 32)."""

NO_IDENTITY_FIX: Final = "p2pdist ca issue --role {0} --out DIR, then {0}.identity_dir = DIR"


def check_keys(settings: Settings, role: str) -> Iterator[Finding]:
    """The cluster secret, the proxy's key and the keys to believe."""
    yield _attempt(
        "cluster secret",
        lambda: _secrets_text(settings),
        "`p2pdist keys init --dir DIR`, the same file on every host",
    )
    yield _attempt(
        "proxy keys", lambda: _believed(settings), "paste what `p2pdist keys init` printed"
    )
    yield _attempt(
        "upstreams",
        lambda: registries_text(len(upstream_entries(settings, with_secrets=role == "proxy"))),
        "mend the [[upstream]] tables; `p2pdist config verify` names every fault",
    )
    if role == "proxy":
        yield _attempt("signing key", lambda: _signing(settings), "`p2pdist keys init`")


def check_identity(settings: Settings, role: Role, now_s: float) -> Finding:
    """The certificate of a daemon: is there one, and for how long."""
    fix = NO_IDENTITY_FIX.format(role.value)
    try:
        own = host_identity(settings, role)
    except ConfigError as error:
        return failed("identity", str(error), fix)
    if own is None:
        return passed("identity", f"off for the {role.value}: whoever has the secret is believed")
    if why := own.revoked.why(own.identity.host_id):
        return failed("identity", why, RULES[Reason.IDENTITY_REVOKED].fix)
    again = f"p2pdist ca issue --role {role.value} --out DIR, then copy it to {own.directory}"
    if fault := own.says.fault_at(now_s):
        alone = "no tracker takes it" if own.required else "the cluster secret alone speaks for it"
        return failed("identity", f"the certificate of {own.identity} {fault}: {alone}", again)
    left = f"{own.identity}, for another {span_text(own.says.ends_s - now_s)}"
    if now_s >= own.says.renew_from_s:
        return warned("identity", left, again)
    alone = "others are refused" if own.required else "hosts without one are taken, too"
    return passed("identity", f"{left}; {alone}")


def check_private_layers(settings: Settings, role: Role, hosts: Iterable[str]) -> Iterator[Finding]:
    """A warning where `hosts`, registries that decide by the caller, are served to or by a daemon
    without a certificate: that works, and spares the proxies' uplinks nothing."""
    named = ", ".join(sorted(hosts))
    if named and getattr(settings, role.value).identity_dir is None:
        text = (
            f"private layers of {named} go to each host from a proxy, never from host to host: "
            f"the {role.value} has no certificate"
        )
        yield warned("private layers", text, NO_IDENTITY_FIX.format(role.value))


def with_found_keys(settings: Settings) -> tuple[Settings, Finding]:
    """Fill in the keys that all-in-one made at its first start; none are made here."""
    cluster, proxy = settings.cluster, settings.proxy
    directory = settings.host.state_dir / "keys"
    if cluster.secret_file is not None and proxy.key_file is not None:
        return settings, passed("keys", "named by the settings")
    if not (os.path.exists(directory / SECRET_NAME) and os.path.exists(directory / KEY_NAME)):
        return settings, passed("keys", f"made at the first start, in {directory}")
    try:
        keys = find_or_make_keys(directory)
    except ConfigError as error:
        return settings, failed("keys", str(error), "mend the file, or move both files away")
    cluster = replace(
        cluster,
        secret_file=cluster.secret_file or keys.secret_file,
        proxy_keys=(*cluster.proxy_keys, keys.public_key),
    )
    proxy = replace(proxy, key_file=proxy.key_file or keys.key_file)
    return replace(settings, cluster=cluster, proxy=proxy), passed("keys", f"in {directory}")


def _secrets_text(settings: Settings) -> str:
    believed = read_secrets(settings.cluster.secret_file)
    which = "fingerprint" if len(believed.each) == 1 else "fingerprints"
    return f"{which} {believed}, for its owner only"


def _believed(settings: Settings) -> str:
    if not (keys := proxy_keys(settings)):
        raise ConfigError("cluster.proxy_keys is empty: no chunk map is believed")
    return f"{len(keys)} believed"


def _signing(settings: Settings) -> str:
    own = read_signer(settings.proxy.key_file).public_key_bytes
    if own not in proxy_keys(settings):
        text = base64.b64encode(own).decode()
        raise ConfigError(f"the key's public half {text} is not among cluster.proxy_keys")
    return "its public half is believed"


def _attempt(check: str, look: Callable[[], str], fix: str) -> Finding:
    try:
        return passed(check, look())
    except ConfigError as error:
        return failed(check, str(error), fix)


def check_disk(settings: Settings, role: str) -> Iterator[Finding]:
    """The state directory: there or to be made, ours alone, large enough."""
    state = list(check_state(settings))
    yield from state
    if role != "tracker" and all(finding.level != Level.FAIL for finding in state):
        yield _room(settings, _there(settings))


def check_state(settings: Settings) -> Iterator[Finding]:
    """The state directory: there or to be made, and ours alone."""
    directory, there = settings.host.state_dir, _there(settings)
    if not os.access(there, os.W_OK | os.X_OK):
        fix = f"run as its owner, or: chown $(id -un) {there}; or set host.state_dir"
        yield failed("state", f"{there} cannot be written to", fix)
        return
    if directory.exists() and directory.stat().st_mode & 0o022:
        yield warned("state", f"{directory} may be written by others", f"chmod go-w {directory}")
    else:
        yield passed("state", f"{directory} can be written")


def _there(settings: Settings) -> Path:
    """The state directory, or what is there of its path."""
    directory = settings.host.state_dir
    return next((p for p in (directory, *directory.parents) if p.exists()), Path("/"))


def _room(settings: Settings, there: Path) -> Finding:
    free = shutil.disk_usage(there).free
    wanted = settings.store.max_bytes
    if free < wanted // 10:
        fix = "free some, set store.max_bytes lower, or host.state_dir elsewhere"
        return failed("disk", f"{_gb(free)} free of {_gb(wanted)} for blobs", fix)
    if free < wanted:
        fix = f"set store.max_bytes to what may be used, such as {free * 8 // 10 // 10**9}GB"
        return warned("disk", f"{_gb(free)} free, store.max_bytes is {_gb(wanted)}", fix)
    return passed("disk", f"{_gb(free)} free for {_gb(wanted)} of blobs")


def check_limits() -> Iterator[Finding]:
    """Descriptors, and memory where it is limited."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fix = "LimitNOFILE=1048576 in the unit, or ulimit -n"
    if hard < DESCRIPTORS_MIN:
        yield failed("descriptors", f"at most {hard} open files", fix)
    elif hard < DESCRIPTORS_ENOUGH:
        yield warned("descriptors", f"at most {hard} open files", fix)
    else:
        yield passed("descriptors", f"up to {hard} open files")
    limit = _memory_limit()
    if limit is not None and limit < MEMORY_MIN_BYTES:
        fix = "MemoryMax=256M or more in the unit"
        yield warned("memory", f"limited to {limit >> 20} MiB", fix)
    else:
        yield passed("memory", f"limited to {limit >> 20} MiB" if limit else "not limited")


def _memory_limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:  # more is how the kernel says "no limit"
            return int(text)
    return None


def check_exposure(settings: Settings, role: str) -> Iterator[Finding]:
    """Who can reach what listens here."""
    own: Any = getattr(settings, role)
    if _loopback(own.admin_listen):
        yield passed("admin port", f"{own.admin_listen}, this host only")
    else:
        fix = "let only Prometheus reach it (docs/install.md, firewall), or listen on loopback"
        yield warned("admin port", f"{own.admin_listen} is open to whoever reaches it", fix)


def check_mirror_exposure(settings: Settings) -> Finding:
    """Who can pull through the mirror of this host's runtime."""
    listen = settings.peer.listen
    if _loopback(listen):
        return passed("mirror port", f"{listen}, this host only")
    fix = "peer.listen = 127.0.0.1:5300; a runtime needs no more"
    return warned("mirror port", f"whoever reaches {listen} may pull through it", fix)


def _loopback(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
