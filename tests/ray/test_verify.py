"""Ray tasks check and repair many shards, with the same result as a serial run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from raysys.errors import DamagedData
from raysys.verify import stage
from tests.shards_by_hand import cut, foreign_sample, write_tar


@pytest.mark.usefixtures("ray_cluster")
def test_shards_are_verified_and_repaired_by_ray_tasks(tmp_path: Path) -> None:
    for number in range(6):
        write_tar(tmp_path / "in" / f"{number}.tar", [foreign_sample(f"{number}-a"), foreign_sample("same")])
    cut(tmp_path / "in" / "5.tar", 100)
    out = io.StringIO()
    with pytest.raises(DamagedData, match="5 findings of damage in 5 of 7 shards and folders"):
        stage.run([str(tmp_path / "in")], [], None, True, out)
    assert json.loads(out.getvalue())["counts"] == {"repeated_key": 4, "damaged_header": 1}

    stage.run([str(tmp_path / "in")], [], str(tmp_path / "out"), True, out)
    repaired = json.loads(out.getvalue().splitlines()[1])["repaired"]
    assert repaired == {"uri": str(tmp_path / "out"), "num_kept": 6, "num_lost": 4, "num_parts": 1}
