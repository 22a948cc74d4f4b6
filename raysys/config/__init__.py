"""Configuration: one schema with every default and rule, and one loader that explains itself."""

from raysys.config.load import load_config
from raysys.config.schema import Config

__all__ = ["Config", "load_config"]
