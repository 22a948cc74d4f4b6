"""Tests on a GPU compile functions."""

from __future__ import annotations

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def _shapes_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile cannot trace the checks of the signatures' shapes."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
