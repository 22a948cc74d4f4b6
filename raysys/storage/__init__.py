"""Places: one way to read, write and list, whether a URI is a local path, `s3://` or `gs://`.

It is pyarrow's filesystems with five habits added: writes are atomic, reads are whole, what failed in
passing is tried again, paths are joined as text, and what goes wrong is one line that names the URI.
`gs://` goes the same way as `s3://` and is not tested here.

uri.py says where a URI lies, patience.py what is tried again, reading.py and writing.py do the rest.
"""

from raysys.storage.reading import (
    exists,
    is_folder,
    list_files,
    list_folders,
    open_input,
    read_bytes,
    read_range,
    readable_file,
    readable_folder,
    sha256_of,
    sha256_of_bytes,
    stat_files,
)
from raysys.storage.uri import absolute, is_local, join, local_path, resolve
from raysys.storage.writing import (
    create_folder,
    delete,
    delete_drafts,
    upload_folder,
    writable_file,
    write_bytes,
)

__all__ = [
    "absolute",
    "create_folder",
    "delete",
    "delete_drafts",
    "exists",
    "is_folder",
    "is_local",
    "join",
    "list_files",
    "list_folders",
    "local_path",
    "open_input",
    "read_bytes",
    "read_range",
    "readable_file",
    "readable_folder",
    "resolve",
    "sha256_of",
    "sha256_of_bytes",
    "stat_files",
    "upload_folder",
    "writable_file",
    "write_bytes",
]
