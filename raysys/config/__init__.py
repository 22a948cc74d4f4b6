"""Configuration: one schema with every default and rule, and a loader with clear errors."""

from raysys.config.load import load_config
from raysys.config.schema import Config

__all__ = ["Config", "load_config"]
