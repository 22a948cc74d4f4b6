"""How long storage operations may take: the section `storage` of the configuration.

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
