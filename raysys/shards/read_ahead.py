"""A stream that reads a few kilobytes ahead: the headers of a tar cost one ranged read for each photo.

The members of a sample and the header of the next photo are neighbours, so that one window holds all of them.
"""

from __future__ import annotations

import io
from typing import IO

from raysys.storage.seekable import SeekableStream

# With img2dataset, a json, a txt and three extended headers take 6 kB; a json with EXIF data takes more.
_WINDOW_BYTES = 8 << 10


class ReadAhead(SeekableStream):
    """Reads of another stream in windows of 8 KiB; only the last window is kept.

    `num_read` counts the bytes that were read from the other stream.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self.num_bytes = stream.seek(0, io.SEEK_END)
        self._window, self._window_start = b"", 0
        self.num_read = 0

    def read_at(self, num_bytes: int, offset: int) -> bytes:
        """`num_bytes` from `offset`; fewer only at the end."""
        rest = max(0, self.num_bytes - offset)
        wanted = min(num_bytes, rest)
        start = offset - self._window_start
        if not 0 <= start <= start + wanted <= len(self._window):
            self._stream.seek(offset)
            self._window = self._stream.read(max(wanted, min(_WINDOW_BYTES, rest)))
            self._window_start, start = offset, 0
            self.num_read += len(self._window)
        return self._window[start : start + wanted]
