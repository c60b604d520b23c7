"""How a pull ended: a line for people, a JSON object for scripts."""

from __future__ import annotations

from typing import Any

from p2pdist.cli.amounts import size_text
from p2pdist.cli.failures import cause_of, explain
from p2pdist.cli.pulling.client import PulledImage, title
from p2pdist.oci.reference import Reference
from p2pdist.process.terminal import printable


def summary(pulled: PulledImage, took_s: float) -> str:
    """The last line on stderr."""
    total = sum(blob.size for blob in pulled.blobs)
    rate = size_text(total / max(took_s, 0.001))
    name = printable(title(pulled.reference))
    return f"pulled {name}: {size_text(total)} in {took_s:.1f} s ({rate}/s)"


def pull_record(pulled: PulledImage, output: str | None, took_s: float) -> dict[str, Any]:
    """`output` as it was given."""
    built_for = pulled.platform
    parts = (built_for.os, built_for.architecture, built_for.variant) if built_for else ()
    return {
        "schema_version": 1,
        "exit_code": 0,
        "image": title(pulled.reference),
        "digest": pulled.digest,
        "media_type": pulled.info.media_type,
        "platform": "/".join(filter(None, parts)) or None,
        "size_bytes": sum(blob.size for blob in pulled.blobs),
        "took_s": round(took_s, 3),
        "output": output,
        "blobs": [
            {"digest": blob.digest, "size_bytes": blob.size, "media_type": blob.media_type}
            for blob in pulled.blobs
        ],
    }


def failure_record(reference: Reference, error: Exception) -> dict[str, Any]:
    """The same for a pull that failed: the sentence and the hint that stderr gets as well."""
    code, message, hint = explain(cause_of(error))
    return {
        "schema_version": 1,
        "exit_code": int(code),
        "image": title(reference),
        "error": message,
        "hint": hint or None,
    }
