"""Pulls an image through a mirror as a runtime does, three layers at a time, and checks it.

    client.py BASE_URL REPOSITORY TAG START_AT check|read

`read` looks at no byte. Waits until START_AT (seconds of the monotonic clock, which all processes
of a machine share) and prints one JSON object.
Standard library only, one reused buffer: its cost is the same for whoever serves it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

AT_ONCE = 3
BUFFER_BYTES = 256 * 1024
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
SILENCE_S = 120.0


def get(base: str, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=SILENCE_S)
    connection.request("GET", f"{path}?ns=docker.io", headers={"Accept": MANIFEST_TYPE})
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise OSError(f"{path}: {answer.status} {answer.read(300)!r}")
    return connection, answer


def read_layer(
    base: str, root: str, layer: dict[str, object], *, check: bool
) -> tuple[float, float]:
    """Read one layer; return when its first byte came, and the longest silence."""
    connection, answer = get(base, f"{root}/blobs/{layer['digest']}")
    buffer, hasher, count = memoryview(bytearray(BUFFER_BYTES)), hashlib.sha256(), 0
    first_s = before_s = time.monotonic()
    gap_s = 0.0
    while n := answer.readinto(buffer):
        now_s = time.monotonic()
        if not count:
            first_s = now_s
        else:
            gap_s = max(gap_s, now_s - before_s)
        before_s = now_s
        if check:
            hasher.update(buffer[:n])
        count += n
    connection.close()
    right = not check or f"sha256:{hasher.hexdigest()}" == layer["digest"]
    if not right or count != layer["size"]:
        raise OSError(f"wrong bytes for {layer['digest']}: {count} bytes")
    return first_s, gap_s


def main() -> None:
    base, repository, tag, start_at, how = sys.argv[1:]
    check = how == "check"
    root = f"/v2/{repository}"
    time.sleep(max(0.0, float(start_at) - time.monotonic()))
    connection, answer = get(base, f"{root}/manifests/{tag}")
    layers = json.loads(answer.read())["layers"]
    connection.close()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        read = list(threads.map(lambda layer: read_layer(base, root, layer, check=check), layers))
    began_s = float(start_at)
    result = {
        "seconds": time.monotonic() - began_s,
        "first_byte_s": min(first_s for first_s, _ in read) - began_s,
        "gap_s": max(gap_s for _, gap_s in read),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
