"""raysys: from a catalogue of photos and titles to a live similar-looks shelf, on Ray.

The public Python API is imported when it is first used: `import raysys` imports neither Ray nor torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysys.api import (
        Embeddings,
        Encoder,
        Hit,
        Index,
        Interval,
        evaluate_log,
        load_embeddings,
        load_encoder,
        load_index,
        read_log,
    )

__version__ = "0.2.0"

__all__ = [
    "Embeddings",
    "Encoder",
    "Hit",
    "Index",
    "Interval",
    "evaluate_log",
    "load_embeddings",
    "load_encoder",
    "load_index",
    "read_log",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'raysys' has no attribute '{name}'")
    from raysys import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
