"""`python -m p2pdist.streaming.build_worker FD DIGEST`: indexes a layer in a process by itself.

The layer comes from strangers: what its archive does to this process it does to nothing else. The
file is open as FD; how far it may be read comes on stdin, an offset to a line, and `end` once the
blob has its digest. The index goes to stdout. Exit codes: 0; 65, unfit, the reason on stderr.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Final

from p2pdist.model.ids import Digest, parse_digest
from p2pdist.streaming.building import IndexBuilder
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.core.tar import UnfitLayer

UNFIT: Final = 65
READ_BYTES: Final = 1 << 20
# A million entries with long names take 1 GiB.
MEMORY_BYTES_MAX: Final = 2 << 30
CPU_S_MAX: Final = 4 * 3600
"""A layer of 1 TB; what takes longer hangs, and others wait for their turn."""


def build(fd: int, blob: Digest) -> bytes | None:
    """Return the index; None where stdin ends before the blob has its digest. Raises UnfitLayer."""
    builder, at = IndexBuilder(blob), 0
    for line in sys.stdin.buffer:
        if line == b"end\n":
            return encode_index(builder.finish())
        stop = int(line)
        while at < stop:
            data = os.pread(fd, min(READ_BYTES, stop - at), at)
            if not data:
                raise UnfitLayer(f"its file ends at byte {at}")
            builder.feed(data)
            at += len(data)
    return None


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        index = build(int(sys.argv[1]), parse_digest(sys.argv[2]))
    except (UnfitLayer, MemoryError) as error:
        sys.stderr.write(str(error) or "it takes too much memory")
        return UNFIT
    if index is not None:
        sys.stdout.buffer.write(index)
    return 0


if __name__ == "__main__":
    sys.exit(main())
