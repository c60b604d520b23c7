"""What operators write for registries and proxies: names of hosts, and URLs to start from."""

from __future__ import annotations

from urllib.parse import urlsplit

from p2pdist.oci.reference import canonical_upstream


def check_registry_host(text: str) -> None:
    """Raise ValueError, with what to write, for anything but the `host[:port]` of a reference."""
    _, scheme, rest = text.rpartition("://")
    host, path, _ = rest.partition("/")
    if scheme or path:
        extra = "scheme" if scheme else "path"
        raise ValueError(f"a registry's name has no {extra}: write {host!r}; url says where it is")
    canonical_upstream(text)


def check_base_url(text: str) -> None:
    """Raise ValueError for anything but `http[s]://host[:port]` and perhaps a path."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected a URL that starts with http:// or https://, not {text!r}")
    if parts.port == 0:  # beyond 65535 it raises by itself
        raise ValueError(f"no server has port 0: {text!r}")
    if "@" in parts.netloc:
        raise ValueError("a URL with an account; those are read from files")
    if parts.query or parts.fragment:
        raise ValueError(f"a URL without query and fragment is wanted, not {text!r}")


def check_origin_url(text: str) -> None:
    """Raise ValueError for anything but `http[s]://host[:port]`."""
    check_base_url(text)
    parts = urlsplit(text)
    if parts.path.strip("/"):
        raise ValueError(f"write {parts.scheme}://{parts.netloc}: no path follows")
