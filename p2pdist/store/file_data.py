"""The data of a blob as whoever sends or reads it has it open."""

from __future__ import annotations

from p2pdist.process.files import pread_all
from p2pdist.store.disk import Disk
from p2pdist.store.open_files import Borrowed


class FileData:
    """A borrowed file (`ports.OpenData`)."""

    __slots__ = ("_borrowed", "_disk")

    def __init__(self, borrowed: Borrowed, disk: Disk) -> None:
        self._borrowed = borrowed
        self._disk = disk

    @property
    def fileno(self) -> int:
        return self._borrowed.fileno

    async def read(self, offset: int, length: int) -> bytes:
        """Raises StoreError."""
        return await self._disk.run("read", pread_all, self.fileno, length, offset)

    def close(self) -> None:
        self._borrowed.close()
