"""Read, write and list files by URI: a local path, `file://`, `s3://` or `gs://`.

The functions wrap pyarrow's filesystems and add six guarantees:

- Writes are atomic: a reader sees the complete new file, or the old one.
- Reads are complete: a response that ends early is an error and is read again.
- Transient errors of object stores are retried, up to six times.
- No wait is silent or unlimited, and Ctrl-C ends it at once: see the section `storage` of the configuration.
- Paths are joined as text; nothing is percent-encoded.
- Errors are one line with the URI: `MissingError`, `InputError` (access denied) or `StorageError`.

`gs://` takes the same code path as `s3://`; the tests cover `s3://` only. Credentials and the address of an
S3-compatible store come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_REGION`;
`GOOGLE_APPLICATION_CREDENTIALS`).

Modules: `uri` (URI to filesystem and path; the first contact with a store), `limits` (how long operations may
take), `failures` (kinds of errors), `retry` (what is repeated, and the error messages), `reading`, `writing`,
and `lock` (one writer per local folder).
"""

from raysys.storage.limits import configure
from raysys.storage.reading import (
    exists,
    is_file,
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
from raysys.storage.retry import free_bytes
from raysys.storage.uri import absolute, is_local, join, local_path, resolve
from raysys.storage.writing import (
    append_bytes,
    copy_file,
    create_folder,
    delete,
    delete_drafts,
    require_folder,
    require_writable,
    upload_folder,
    writable_file,
    write_bytes,
)

__all__ = [
    "absolute",
    "append_bytes",
    "configure",
    "copy_file",
    "create_folder",
    "delete",
    "delete_drafts",
    "exists",
    "free_bytes",
    "is_file",
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
    "require_folder",
    "require_writable",
    "resolve",
    "sha256_of",
    "sha256_of_bytes",
    "stat_files",
    "upload_folder",
    "writable_file",
    "write_bytes",
]
