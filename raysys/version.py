"""The version of raysys."""

__version__ = "0.2.0"
