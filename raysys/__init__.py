"""raysys: from a catalogue of photos and titles to a live similar-looks shelf, on Ray.

The public Python API is imported when it is first used: `import raysys` imports neither Ray nor torch.
`load_encoder`, `load_index`, `load_embeddings`, `read_log` and `evaluate_log` read what the stages made
(`raysys.api`); `Client` and `AsyncClient` use a running service (`raysys.client`).
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
    from raysys.client import AsyncClient, Client, Delete, Upsert

__all__ = [
    "AsyncClient",
    "Client",
    "Delete",
    "Embeddings",
    "Encoder",
    "Hit",
    "Index",
    "InteractionLog",
    "Interval",
    "Upsert",
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
    if name in ("AsyncClient", "Client", "Delete", "Upsert"):
        from raysys import client  # without FAISS and pyarrow, which `api` imports

        return getattr(client, name)
    from raysys import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
