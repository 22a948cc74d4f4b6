"""Whether weights can be had: answered at once, and in one line."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from raysys.encoder.hub import require_reachable
from raysys.errors import MissingError


def test_folder_is_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    require_reachable(str(tmp_path / "weights"))
    require_reachable("weights")


def test_cached_id_is_reachable_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--siglip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "snapshots" / "c0ffee" / "config.json").write_text("{}")
    require_reachable("someone/siglip")


def test_unreachable_id_is_one_line() -> None:
    with pytest.raises(MissingError) as caught:
        require_reachable("someone/siglip-of-nowhere")
    assert str(caught.value).startswith("someone/siglip-of-nowhere: weights not reachable here (")
    assert str(caught.value).endswith("); give a local path")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["weights/siglip/base", "my weights", "~/weights"])
def test_path_that_is_not_there_is_one_line(source: str) -> None:
    with pytest.raises(MissingError) as caught:
        require_reachable(source)
    assert str(caught.value).startswith(f"{source}: weights not reachable here (")
