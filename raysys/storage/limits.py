"""How long storage operations may take: the section `storage` of the configuration.

`contact_timeout_s` is for the first answer of a store, `operation_timeout_s` for an operation whose data
arrives slowly. A store that falls silent later is given up earlier, by the clients in pyarrow:

- `s3://`: a request fails after 3 s without a byte, or after 10 s if much arrived before (curl compares an
  average rate). The client sends it three times, and `with_retry` repeats that six times: 1 to 4 minutes.
- `gs://`: a request fails after 120 s without a byte, for which pyarrow has no option; with six tries of
  `with_retry` after about 12 minutes.

A process-wide value, because every module reads and writes by URI alone. Ray workers use the defaults: they
start after the driver has reached the store.
"""

from __future__ import annotations

from raysys.config.schema import StorageConfig

_sections = [StorageConfig()]


def configure(section: StorageConfig) -> None:
    """Use these limits in this process."""
    _sections[:] = [section]


def current() -> StorageConfig:
    """The limits of this process."""
    return _sections[0]
