"""The index as a Serve deployment of its own, where the gateways do not open it themselves."""

from __future__ import annotations

from typing import Any

from ray import serve

from raysys.serve.index_service import IndexService

SEARCHER = "Searcher"


@serve.deployment(name=SEARCHER)
class SearchDeployment(IndexService):
    """Searches for the gateways."""


class RemoteIndex:
    """An `IndexService` of the complete index that is a replica behind a deployment handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getattr__(self, method: str) -> Any:
        return getattr(self._handle, method).remote
