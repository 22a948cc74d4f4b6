"""The kernels that a compiler makes of the towers; not a unit test, as torch waits for g++ there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.train.test_step import build_start, require_compiled_once


@pytest.mark.slow  # g++ takes ten seconds and more for a model of any size
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # torch's own
def test_compiled_kernels_take_the_same_steps_and_compile_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_start(tmp_path / "tiny")
    require_compiled_once(tmp_path / "tiny", monkeypatch)
