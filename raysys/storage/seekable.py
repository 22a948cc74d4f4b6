"""A readable, seekable stream on top of reads at any offset."""

from __future__ import annotations

import abc
import io


class SeekableStream(io.RawIOBase, abc.ABC):
    """A stream of `num_bytes` bytes at position 0; a subclass sets their number and reads them."""

    num_bytes: int

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    @abc.abstractmethod
    def read_at(self, num_bytes: int, offset: int) -> bytes:
        """`num_bytes` from `offset`; fewer only at the end."""

    def read(self, num_bytes: int | None = -1) -> bytes:
        """The next bytes, fewer only at the end; all remaining bytes without a number."""
        wanted = self.num_bytes if num_bytes is None or num_bytes < 0 else num_bytes
        data = self.read_at(wanted, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next read, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.num_bytes}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
