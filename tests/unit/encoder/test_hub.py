"""Access to checkpoints: reachable sources, and errors of one line."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import huggingface_hub.constants
import pytest

from raysys.config.schema import HubConfig
from raysys.encoder import hub_limits
from raysys.encoder.hub import load, load_tokenizer, require_reachable
from raysys.errors import InputError, MissingError
from tests.factories import tiny_checkpoint


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubConfig]:
    """Short limits, and a client whose own ones are restored after the test."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(huggingface_hub.constants, name, 10)
    section = HubConfig(contact_timeout_s=2.5, download_timeout_s=0.02)
    hub_limits.configure(section)
    yield section
    hub_limits.configure(HubConfig())


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


@pytest.mark.parametrize("source", ["weights/siglip/base", "my weights", "~/weights", "/weights"])
def test_missing_path_is_an_error_of_one_line(source: str) -> None:
    with pytest.raises(MissingError) as caught:
        require_reachable(source)
    assert str(caught.value) == (
        f"{source}: neither a folder here nor an id of the Hugging Face hub (owner/model); check the path"
    )


def test_folder_without_a_tokenizer_is_an_error_of_one_line(tmp_path: Path) -> None:
    config = Path(tiny_checkpoint(tmp_path / "full", ["red cup", "blue hat"]), "config.json")
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_download_has_a_time_limit(limits: HubConfig) -> None:
    answer = threading.Event()
    with pytest.raises(MissingError) as caught:
        load("shop/siglip", answer.wait)
    answer.set()
    assert str(caught.value) == (
        "shop/siglip: not downloaded within 0.02 s; the same command continues, or raise "
        "hub.download_timeout_s"
    )


def test_client_waits_as_long_as_configured_unless_the_environment_has_a_limit(
    limits: HubConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "10")
    load("shop/siglip", lambda: None)
    constants = huggingface_hub.constants
    assert (constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT) == (10, 3)


def test_network_error_behind_an_error_of_transformers_is_reported(limits: HubConfig) -> None:
    def from_pretrained() -> None:
        try:
            raise httpx.ReadTimeout("timed out")
        except httpx.ReadTimeout as error:
            raise OSError("Can't load the model; is it a folder?") from error

    with pytest.raises(MissingError, match=r"^shop/siglip: the download from the hub stopped \(timed out\);"):
        load("shop/siglip", from_pretrained)


def test_error_in_a_downloaded_file_is_not_one_of_the_network(limits: HubConfig) -> None:
    with pytest.raises(ZeroDivisionError):
        load("shop/siglip", lambda: 1 / 0)
