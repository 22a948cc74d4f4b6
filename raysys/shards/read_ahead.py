"""A stream that reads a few kilobytes ahead: the headers of a tar cost one ranged read for each photo.

The members of a sample and the header of the next photo are neighbours, so that one window holds all of them.
"""

from __future__ import annotations

import io
from typing import IO

# With img2dataset, a json, a txt and three extended headers take 6 kB; a json with EXIF data takes more.
_WINDOW_BYTES = 8 << 10


class ReadAhead(io.RawIOBase):
    """Reads of another stream in windows of 8 KiB; only the last window is kept.

    `num_read` counts the bytes that were read from the other stream.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._num_bytes = stream.seek(0, io.SEEK_END)
        self._position = 0
        self._window, self._window_start = b"", 0
        self.num_read = 0

    def read(self, num_bytes: int | None = -1) -> bytes:
        """The next bytes; fewer only at the end."""
        rest = max(0, self._num_bytes - self._position)
        wanted = rest if num_bytes is None or num_bytes < 0 else min(num_bytes, rest)
        start = self._position - self._window_start
        if not 0 <= start <= start + wanted <= len(self._window):
            self._stream.seek(self._position)
            self._window = self._stream.read(max(wanted, min(_WINDOW_BYTES, rest)))
            self._window_start, start = self._position, 0
            self.num_read += len(self._window)
        data = self._window[start : start + wanted]
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next read, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
