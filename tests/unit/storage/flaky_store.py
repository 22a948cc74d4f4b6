"""A fake object store, backed by a folder, that fails at one byte: by an error or by a short response."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.fs as pafs

NETWORK = "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56, Failure when receiving data"


class FlakyStore(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """A pyarrow filesystem on a folder. Reads and uploads that include byte `at` fail, `times` times in all.

    `how` is `error` (an OSError) or `short` (only the bytes before `at`, and no error).
    """

    def __init__(self, folder: Path, how: Literal["error", "short"] = "error") -> None:
        self._inner = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
        self.how = how
        self.at = -1
        self.times = 0
        self.message = NETWORK
        self.failed = 0

    def fail(self, at: int, times: int = 1) -> None:
        """Set the byte to fail at and the number of failures."""
        self.at, self.times, self.failed = at, times, 0

    def fails_in(self, start: int, end: int) -> bool:
        """Whether an access to these bytes fails; counts the failure."""
        if not start <= self.at < end or self.failed >= self.times:
            return False
        self.failed += 1
        return True

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_FlakyReader(self, self._inner.open_input_file(path)), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return pa.PythonFile(_FlakyUpload(self, lambda data: self._put(path, data)), mode="w")

    def _put(self, path: str, data: bytes) -> None:
        with self._inner.open_output_stream(path) as stream:
            stream.write(data)

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return list(self._inner.get_file_info(paths))

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        return list(self._inner.get_file_info(selector))

    def delete_file(self, path: str) -> None:
        self._inner.delete_file(path)

    def delete_dir(self, path: str) -> None:
        self._inner.delete_dir(path)

    def get_type_name(self) -> str:
        return "flaky"

    def normalize_path(self, path: str) -> str:
        return path

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def _unused(self, *_: Any) -> Any:
        raise AssertionError("raysys does not use this operation")

    create_dir = delete_dir_contents = delete_root_dir_contents = move = copy_file = _unused
    open_input_stream = open_append_stream = _unused


class _FlakyReader:
    def __init__(self, store: FlakyStore, inner: pa.NativeFile) -> None:
        self._store, self._inner = store, inner
        self.closed = False

    def read(self, num_bytes: int = -1) -> bytes:
        start = self._inner.tell()
        data: bytes = self._inner.read() if num_bytes < 0 else self._inner.read(num_bytes)
        if not self._store.fails_in(start, start + len(data)):
            return data
        if self._store.how == "short":
            return data[: self._store.at - start]
        raise OSError(self._store.message)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._inner.seek(offset, whence))

    def tell(self) -> int:
        return int(self._inner.tell())

    def close(self) -> None:
        self.closed = True
        self._inner.close()


class _FlakyUpload:
    """Like a multipart upload: it becomes visible when it is closed without a failure."""

    def __init__(self, store: FlakyStore, put: Callable[[bytes], None]) -> None:
        self._store, self._put = store, put
        self._parts: list[bytes] = []
        self._broken = False
        self.closed = False

    def write(self, data: bytes) -> None:
        start = sum(map(len, self._parts))
        if self._store.fails_in(start, start + len(data)):
            if self._store.how == "error":
                self._broken = True
                raise OSError(self._store.message)
            data = bytes(data)[: self._store.at - start]
        self._parts.append(bytes(data))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if not self.closed and not self._broken:
            self._put(b"".join(self._parts))
        self.closed = True
