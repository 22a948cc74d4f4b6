"""raysys: from a catalogue of photos and titles to a live similar-looks shelf, on Ray.

The public Python API is imported when it is first used: `import raysys` imports neither Ray nor torch.
"""

from raysys.version import __version__

TYPE_CHECKING = False  # true for type checkers; importing `typing` would take longer than this whole module
if TYPE_CHECKING:
    from raysys.api import (
        Embeddings,
        Encoder,
        Hit,
        Index,
        InteractionLog,
        Interval,
        evaluate_log,
        load_embeddings,
        load_encoder,
        load_index,
        read_log,
    )

__all__ = [
    "Embeddings",
    "Encoder",
    "Hit",
    "Index",
    "InteractionLog",
    "Interval",
    "__version__",
    "evaluate_log",
    "load_embeddings",
    "load_encoder",
    "load_index",
    "read_log",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'raysys' has no attribute '{name}'")
    from raysys import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
