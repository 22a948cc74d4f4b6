"""Access to checkpoints: reachable sources, and errors of one line."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from raysys.encoder.hub import load_tokenizer, require_reachable
from raysys.errors import InputError, MissingError
from tests.factories import tiny_checkpoint


def test_folder_is_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    require_reachable(str(tmp_path / "weights"))
    require_reachable("weights")


def test_cached_hub_id_is_reachable_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--siglip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "snapshots" / "c0ffee" / "config.json").write_text("{}")
    require_reachable("someone/siglip")


def test_unreachable_hub_id_is_an_error_of_one_line() -> None:
    with pytest.raises(MissingError) as caught:
        require_reachable("someone/siglip-of-nowhere")
    assert str(caught.value).startswith("someone/siglip-of-nowhere: weights not reachable here (")
    assert str(caught.value).endswith("); give a local path")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["weights/siglip/base", "my weights", "~/weights"])
def test_missing_path_is_an_error_of_one_line(source: str) -> None:
    with pytest.raises(MissingError) as caught:
        require_reachable(source)
    assert str(caught.value).startswith(f"{source}: weights not reachable here (")


def test_folder_without_a_tokenizer_is_an_error_of_one_line(tmp_path: Path) -> None:
    config = Path(tiny_checkpoint(tmp_path / "full", ["red cup", "blue hat"]), "config.json")
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)
