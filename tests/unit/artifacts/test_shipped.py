"""The shipped checkpoint: complete, small, plain transformers loads it; damage is found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from raysys.artifacts.shipped import CHECKSUMS, TINY_FOLDER, tiny_checkpoint
from raysys.errors import DamagedData

MAX_BYTES = 8_000_000


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_FOLDER, tmp_path / "tiny"))


def test_files_are_small_and_weights_are_float16() -> None:
    assert sum(path.stat().st_size for path in TINY_FOLDER.iterdir()) <= MAX_BYTES
    assert {tensor.dtype for tensor in load_file(TINY_FOLDER / "model.safetensors").values()} == {
        torch.float16
    }


def test_plain_transformers_embeds_a_photo_and_titles_in_two_languages() -> None:
    model = transformers.AutoModel.from_pretrained(TINY_FOLDER, dtype=torch.float32)
    assert type(model) is transformers.SiglipModel
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_FOLDER)
    english, japanese = (tokenizer(title)["input_ids"] for title in ("red dress", "赤 ワンピース"))
    assert len(english) <= 5
    assert len(japanese) <= 6
    assert tokenizer.unk_token_id not in [*english, *japanese]


def test_characters_that_no_title_had_become_bytes() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_FOLDER)
    assert tokenizer.unk_token_id not in tokenizer("платье 鞄 👗")["input_ids"]


def test_identity_is_that_of_the_files(copy: Path) -> None:
    assert tiny_checkpoint(copy) == tiny_checkpoint()
    (copy / "config.json").write_text("{}")
    (copy / CHECKSUMS).unlink()
    with pytest.raises(DamagedData):
        tiny_checkpoint(copy)


def test_damaged_weights_are_named(copy: Path) -> None:
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedData) as caught:
        tiny_checkpoint(copy)
    assert str(caught.value) == (
        f"encoder.start: tiny: {weights} is not the file of this version; install raysys again"
    )


@pytest.mark.parametrize("name", ["spiece.model", CHECKSUMS])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(DamagedData, match=f"{name} is not"):
        tiny_checkpoint(copy)
