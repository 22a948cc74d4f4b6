"""How long the Hugging Face hub may take: the section `hub` of the configuration.

A process-wide value, as `raysys.storage.limits`: only the driver downloads, and checkpoints are opened in
many places by their source alone. Apart from `hub`, because it imports neither torch nor transformers.
"""

from __future__ import annotations

from raysys.config.schema import HubConfig

_sections = [HubConfig()]


def configure(section: HubConfig) -> None:
    """Use these limits in this process."""
    _sections[:] = [section]


def current() -> HubConfig:
    """The limits of this process."""
    return _sections[0]
