"""The Python example of the front page runs on what `raysys run` made, and its comments are true."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import raysys
from tests.e2e.conftest import CompletedRun
from tests.e2e.small import NAME, SMALL


def test_python_example_runs(completed_run: CompletedRun) -> None:
    readme = Path(raysys.__file__).parents[1] / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.S)
    example = example.replace(".raysys/demo/", f"{completed_run.root}/").replace("/demo", f"/{NAME}")
    names: dict[str, Any] = {}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(example, names)
    dimensions = SMALL["projection"]["dimensions"]
    assert names["words"].array.shape == (1, dimensions)
    assert len(names["index"]) == SMALL["catalog"]["num_items"]
    first, interval = output.getvalue().splitlines()
    assert re.fullmatch(r"\S+ -?[01]\.\d+", first)
    assert interval.startswith("Interval(value=0.")
